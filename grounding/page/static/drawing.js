// Draws the boxes, labels and heat map of the current answers on the photo. Sends no requests.

import { $, ABSENT, colour, createElement } from './dom.js';
import { apart, placeLabels } from './labels.js';
import { active, isAbsent, state } from './state.js';

const MAX_LABELS = 6; // if there are more phrases, only the label of the active one is shown
const COLOUR = 0.4; // how much of the photo's colour stays under the heat, as in the downloads
const FULL = 75; // the opacity of the heat map, in percent, at which it does

export function rectangle([x1, y1, x2, y2], stroke, className) {
  const element = document.createElementNS('http://www.w3.org/2000/svg', 'rect');
  const values = { x: x1, y: y1, width: Math.max(1, x2 - x1), height: Math.max(1, y2 - y1), class: className };
  for (const [name, value] of Object.entries(values)) element.setAttribute(name, value);
  if (stroke) element.style.stroke = stroke;
  return element;
}

export function draw() {
  const one = active(), size = [$('frame').clientWidth, $('frame').clientHeight];
  const onScreen = (box) => box.map((value, i) => value * size[i % 2] / (i % 2 ? state.photo.height : state.photo.width));
  const shown = state.photo ? state.answers.map((answer, i) => ({ answer, i })).filter(({ answer }) => answer.groundable) : [];
  const best = apart(shown.map(({ answer }) => onScreen(answer.boxes[0])), size);
  const shapes = shown.flatMap(({ answer, i }, k) => shapesOf(answer, i, best[k], one, onScreen));
  if (state.drawn) shapes.push(rectangle(onScreen(state.drawn), null, 'drawn'));
  $('boxes').setAttribute('viewBox', `0 0 ${size[0] || 1} ${size[1] || 1}`);
  $('boxes').replaceChildren(...shapes);
  drawLabels(shown.map(({ answer, i }, k) => ({ answer, i, box: best[k] })), one, size);
  drawHeat(state.answers[one]);
  [...$('answers').children].forEach((item, i) => {
    item.classList.toggle('on', i === one);
    item.querySelector('.phrase').setAttribute('aria-pressed', String(i === state.selected));
  });
}

// The shapes of one answer, the best box last. Only the active answer shows its further boxes.
function shapesOf(answer, i, box, one, onScreen) {
  const others = one >= 0 && one !== i, look = (others ? ' faint' : '') + (isAbsent(answer) ? ' absent' : '');
  const further = answer.boxes.slice(1, others ? 1 : Number($('count').value)).reverse();
  const line = rectangle(box, colour(i), `box best${look}`);
  line.dataset.box = answer.boxes[0];
  return [...further.map((each) => rectangle(onScreen(each), colour(i), `box further${look}`)), rectangle(box, null, `under${look}`), line];
}

export function drawHeat(answer) {
  const heat = $('heat'), percent = Number($('opacity').value);
  heat.hidden = !answer?.heat;
  heat.style.opacity = percent / 100;
  $('photo').style.filter = heat.hidden ? '' : `saturate(${1 - (1 - COLOUR) * Math.min(1, percent / FULL)})`;
  if (answer?.heat && heat.getAttribute('src') !== answer.heat) heat.src = answer.heat;
}

// The active answer's label finds its place first. A label without a free place is left out; the list has its phrase.
function drawLabels(shown, one, size) {
  const crowded = one >= 0 && state.answers.length > MAX_LABELS;
  const chosen = shown.filter(({ i }) => !crowded || i === one).sort((a, b) => (b.i === one) - (a.i === one));
  const labels = chosen.map(({ answer, i }) => {
    const label = createElement('span', { textContent: isAbsent(answer) ? `${answer.phrase}: ${ABSENT}` : answer.phrase });
    label.className = one >= 0 && one !== i ? 'faint' : '';
    Object.assign(label.style, { background: colour(i), maxWidth: `${Math.max(60, 0.8 * size[0])}px` });
    return label;
  });
  $('labels').replaceChildren(...labels);
  const measured = chosen.map(({ box }, k) => ({ box, size: [labels[k].offsetWidth, labels[k].offsetHeight] }));
  placeLabels(measured, size, shown.map(({ box }) => box)).forEach((place, k) => {
    if (place) Object.assign(labels[k].style, { left: `${place[0]}px`, top: `${place[1]}px` });
    else labels[k].remove();
  });
}
