// Boxes that the user draws on the photo, with the pointer or the keyboard, and the words that describe a box.

import { bodyOf, requestPhoto } from './client.js';
import { $, createElement, showError } from './dom.js';
import { draw } from './drawing.js';
import { add } from './question.js';
import { begin, cancel, state } from './state.js';

const WORDS = 8; // in the list
const MIN_SIDE = 0.015; // of a box, as a share of the photo's longer side; less is a click

export async function showWords(box) {
  const signal = begin('words');
  if ($('words').hidden) $('found').replaceChildren(createElement('li', { className: 'quiet', textContent: 'looking for words …' }));
  $('words').hidden = false;
  $('words').classList.add('waiting');
  draw();
  try {
    const { words } = await bodyOf(await requestPhoto('words', { box, count: WORDS }, signal), 'json', signal);
    $('found').replaceChildren(...words.map(wordItem));
  } catch (error) {
    if (!signal.aborted) $('words').hidden = true;
    showError(error);
  }
  if (!signal.aborted) $('words').classList.remove('waiting');
}

// The first box of a photo takes longer, because the server computes the maps of the most probable tags. This asks for
// them while the visitor reads the answers. A failure is not shown.
let prefetched = null;
export function prefetchWords() {
  if (prefetched === state.photo.token) return;
  prefetched = state.photo.token;
  const { width, height } = state.photo;
  requestPhoto('words', { box: [0, 0, width, height], count: 1 }, begin('prefetch'), 1).catch(() => {});
}

function wordItem({ word, share }) {
  const button = createElement('button', { type: 'button', className: 'link', textContent: word });
  button.addEventListener('click', () => add(word));
  const bar = createElement('i');
  bar.style.width = `${Math.max(2, 100 * share)}%`;
  return createElement('li', {}, button, createElement('div', {}, bar), createElement('span', { textContent: `${(100 * share).toFixed(0)} %` }));
}

export function closeWords() {
  cancel('words');
  $('words').hidden = true;
  state.drawn = null;
  draw();
}

// ---- the pointer on the photo: with the toggle, a drag draws a box; a click selects the smallest box there ----

let start = null;
const drawing = () => $('box').getAttribute('aria-pressed') === 'true';

const HINT = 'Drag over the photo, or move a box with the arrow keys (with Shift: change its size) and press Enter: the words that describe the box follow.';

export function toggleDrawing(on = !drawing()) {
  const frame = $('frame'), attributes = { tabindex: '0', role: 'application', 'aria-label': `Box on the photo. ${HINT}` };
  if (!on && document.activeElement === frame) $('box').focus();
  $('box').setAttribute('aria-pressed', String(on));
  frame.classList.toggle('drawing', on);
  for (const [name, value] of Object.entries(attributes)) on ? frame.setAttribute(name, value) : frame.removeAttribute(name);
  $('hint').textContent = on ? HINT : '';
  if (on) frame.focus({ preventScroll: true });
}

// ---- the keys on the photo: with the toggle, arrows move a box, with Shift its lower right corner; Enter asks for words ----

const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const STEP = 0.02; // of a key press, as a share of the photo's longer side
const FIRST = [0.35, 0.65]; // where the first box begins and ends, as shares of the photo's sides

function pressKey(event) {
  if (!drawing() || event.altKey || event.ctrlKey || event.metaKey) return;
  if (MOVES[event.key]) moveBox(MOVES[event.key], event.shiftKey);
  else if (event.key === 'Enter' && state.drawn) showWords(state.drawn);
  else return;
  event.preventDefault();
  event.stopPropagation(); // arrows step through the answers elsewhere
}

function moveBox(direction, resize) {
  const size = [state.photo.width, state.photo.height], longer = Math.max(...size);
  const first = FIRST.flatMap((share) => size.map((side) => share * side));
  state.drawn = state.drawn ? moved(state.drawn, direction.map((way) => way * STEP * longer), resize, size, MIN_SIDE * longer) : first;
  const [x1, y1, x2, y2] = state.drawn.map((value, i) => Math.round((100 * value) / size[i % 2]));
  $('hint').textContent = `Box from ${x1} to ${x2} % of the width and from ${y1} to ${y2} % of the height. Enter: its words.`;
  draw();
}

function moved(box, by, resize, size, least) {
  const [dx, dy] = by.map((way, i) => {
    const [low, high] = [resize ? Math.min(0, least - (box[i + 2] - box[i])) : -box[i], size[i] - box[i + 2]];
    return Math.min(high, Math.max(low, way));
  });
  return [box[0] + (resize ? 0 : dx), box[1] + (resize ? 0 : dy), box[2] + dx, box[3] + dy];
}

function place(event) {
  const { left, top, width, height } = $('frame').getBoundingClientRect();
  const clamp = (value) => Math.min(1, Math.max(0, value));
  return [clamp((event.clientX - left) / width) * state.photo.width, clamp((event.clientY - top) / height) * state.photo.height];
}

const between = ([x1, y1], [x2, y2]) => [Math.min(x1, x2), Math.min(y1, y2), Math.max(x1, x2), Math.max(y1, y2)];

function press(event) {
  if (!state.photo || event.button) return;
  start = place(event);
  if (drawing()) $('frame').setPointerCapture(event.pointerId);
}

function drag(event) {
  if (!start || !drawing()) return;
  state.drawn = between(start, place(event));
  draw();
}

function release(event) {
  if (!start) return;
  const box = between(start, place(event)), [x, y] = start;
  const least = MIN_SIDE * Math.max(state.photo.width, state.photo.height);
  const drawn = drawing() && box[2] - box[0] > least && box[3] - box[1] > least;
  start = null;
  state.drawn = drawn ? box : null;
  if (drawn) return showWords(box);
  state.selected = smallestAt(x, y);
  return draw();
}

function smallestAt(x, y) {
  const area = ({ boxes: [[x1, y1, x2, y2]] }) => (x2 - x1) * (y2 - y1);
  const holds = ({ boxes: [box] }) => box && x >= box[0] && x < box[2] && y >= box[1] && y < box[3];
  const found = state.answers.filter(holds).sort((a, b) => area(a) - area(b));
  return state.answers.indexOf(found[0]);
}

export function listenToPointer() {
  const frame = $('frame');
  frame.addEventListener('keydown', pressKey);
  frame.addEventListener('pointerdown', press);
  frame.addEventListener('pointermove', drag);
  frame.addEventListener('pointerup', release);
  frame.addEventListener('pointercancel', () => { start = null; state.drawn = null; draw(); });
  frame.addEventListener('dragstart', (event) => event.preventDefault());
  new ResizeObserver(draw).observe(frame);
}
