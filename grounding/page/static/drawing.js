// Draws the boxes, labels and heat map of the current answers on the photo. Sends no requests.

import { $, ABSENT, colour, createElement, isAbsent, state } from './common.js';

const MAX_LABELS = 4; // if there are more phrases, only the label of the active one is shown

export const activeAnswer = () => (state.hovered >= 0 ? state.hovered : state.selected);

export function rectangle([x1, y1, x2, y2], stroke, className) {
  const element = document.createElementNS('http://www.w3.org/2000/svg', 'rect');
  const values = { x: x1, y: y1, width: x2 - x1, height: y2 - y1, class: className };
  for (const [name, value] of Object.entries(values)) element.setAttribute(name, value);
  if (stroke) element.style.stroke = stroke;
  return element;
}

export function draw() {
  const one = activeAnswer(), count = Number($('count').value), shapes = [];
  state.answers.forEach((answer, i) => {
    const faint = (one >= 0 && one !== i ? ' faint' : '') + (isAbsent(answer) ? ' absent' : '');
    answer.boxes.slice(0, one >= 0 && one !== i ? 1 : count).reverse().forEach((box, k, all) => {
      const best = k === all.length - 1;
      if (best) shapes.push(rectangle(box, null, `under${faint}`));
      shapes.push(rectangle(box, colour(i), `box ${best ? 'best' : 'further'}${faint}`));
    });
  });
  if (state.drawn) shapes.push(rectangle(state.drawn, null, 'drawn'));
  if (state.photo) $('boxes').setAttribute('viewBox', `0 0 ${state.photo.width} ${state.photo.height}`);
  $('boxes').setAttribute('preserveAspectRatio', 'none');
  $('boxes').replaceChildren(...shapes);
  drawLabels(one);
  drawHeat(state.answers[one]);
  [...$('answers').children].forEach((item, i) => {
    item.classList.toggle('on', i === one);
    item.querySelector('.phrase').setAttribute('aria-pressed', String(i === state.selected));
  });
}

export function drawHeat(answer) {
  const heat = $('heat');
  heat.hidden = !answer?.heat;
  heat.style.opacity = Number($('opacity').value) / 100;
  if (answer?.heat && heat.getAttribute('src') !== answer.heat) heat.src = answer.heat;
}

// A label is inside the upper left corner of its box. Where two labels would overlap, the second is moved down.
export function drawLabels(one) {
  const { clientWidth: width, clientHeight: height } = $('frame');
  const taken = [], crowded = one >= 0 && state.answers.length > MAX_LABELS;
  const labels = state.answers.map((answer, i) => {
    const label = createElement('span', { textContent: isAbsent(answer) ? `${answer.phrase}: ${ABSENT}` : answer.phrase });
    if (!answer.groundable || (crowded && i !== one)) return null;
    const left = answer.boxes[0][0] / state.photo.width * width;
    let top = answer.boxes[0][1] / state.photo.height * height;
    while (taken.some(([x, y]) => Math.abs(x - left) < 120 && Math.abs(y - top) < 22)) top += 22;
    top = Math.min(top, height - 22);
    taken.push([left, top]);
    Object.assign(label.style, { left: `${left}px`, top: `${top}px`, maxWidth: `${Math.max(60, width - left)}px`, background: colour(i) });
    label.className = one >= 0 && one !== i ? 'faint' : '';
    return label;
  });
  $('labels').replaceChildren(...labels.filter(Boolean));
}
