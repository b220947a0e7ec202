// The list of answers.

import { $, ABSENT, colour, createElement, heatMap } from './dom.js';
import { draw } from './drawing.js';
import { remove } from './question.js';
import { showWords } from './region.js';
import { isAbsent, state, step } from './state.js';

export function answersChanged() {
  $('answers').replaceChildren(...state.answers.map(answerItem));
  showCaption();
  draw();
}

// The phrases are the same as before, so only the scores change.
export function scoresChanged() {
  [...$('answers').children].forEach((item, i) => {
    const score = item.querySelector('.score');
    if (score) score.textContent = scored(state.answers[i]);
  });
  draw();
}

// Selects the next or previous answer. The focus follows if it was on an answer.
export function stepAnswer(direction) {
  const focused = $('answers').contains(document.activeElement);
  step(direction);
  if (focused) $('answers').children[state.selected]?.querySelector('.phrase').focus();
  draw();
}

const scored = ({ scores: [best], presence }) => `score ${best.toFixed(3)}${presence === null ? '' : `, presence ${presence.toFixed(2)}`}`;

function answerItem(answer, i) {
  const item = createElement('li', { className: isAbsent(answer) ? 'absent' : '' });
  item.style.setProperty('--colour', answer.groundable ? colour(i) : 'transparent');
  const phrase = createElement('button', { type: 'button', className: 'phrase', textContent: answer.phrase });
  phrase.addEventListener('click', () => { state.selected = state.selected === i ? -1 : i; draw(); });
  phrase.disabled = !answer.groundable;
  const about = createElement('div', { className: 'about' }, createElement('p', {}, phrase), ...notes(answer));
  if (answer.groundable) about.append(wordsLink(i));
  item.append(thumb(answer), about);
  if (!state.question.caption) item.append(removeButton(answer.phrase));
  for (const [event, hovered] of [['pointerenter', i], ['pointerleave', -1], ['focusin', i], ['focusout', -1]]) {
    item.addEventListener(event, (moved) => {
      if (moved.pointerType === 'touch') return; // a touch selects
      state.hovered = answer.groundable ? hovered : -1;
      draw();
    });
  }
  return item;
}

function removeButton(phrase) {
  const button = createElement('button', { type: 'button', className: 'remove', textContent: '×', title: 'remove' });
  button.setAttribute('aria-label', `remove ${phrase}`);
  button.addEventListener('click', () => remove(phrase));
  return button;
}

function thumb(answer) {
  if (!answer.groundable) return createElement('div', { className: 'thumb none', textContent: '?' });
  const heat = heatMap(answer.heat, `heat map of ${answer.phrase}`);
  return createElement('div', { className: 'thumb' }, createElement('img', { src: state.url, alt: '' }), heat);
}

function notes(answer) {
  const notes = answer.read_as.split('; ').filter(Boolean)
    .map((reading) => createElement('small', { className: 'reading', textContent: reading.replace('->', '→') }));
  if (isAbsent(answer)) notes.push(createElement('small', { className: 'doubt', textContent: ABSENT }));
  if (answer.groundable) notes.push(createElement('small', { className: 'score', textContent: scored(answer) }));
  else notes.push(createElement('small', { textContent: 'not groundable: none of its words is known; write in the language of the tagger, or use other words' }));
  if (answer.groundable && answer.skipped.length) {
    const words = answer.skipped.flatMap((word, i) => [i ? ', ' : '', createElement('span', { className: 'skipped', textContent: word })]);
    notes.push(createElement('small', {}, 'not in the vocabulary: ', ...words));
  }
  return notes;
}

function wordsLink(i) {
  const link = createElement('button', { type: 'button', className: 'link', textContent: 'which words describe this box?' });
  link.addEventListener('click', () => { state.drawn = null; showWords(state.answers[i].boxes[0]); });
  return link;
}

// Shows the caption with each phrase in the colour of its box.
function showCaption() {
  const text = state.question?.caption;
  $('caption').hidden = !text || !state.answers.length;
  if (!text) return;
  const parts = [];
  let at = 0;
  state.answers.forEach((answer, i) => {
    const start = text.indexOf(answer.phrase, at);
    if (start < 0) return;
    const mark = createElement('mark', { textContent: answer.phrase });
    mark.style.borderColor = answer.groundable ? colour(i) : 'var(--line)';
    parts.push(text.slice(at, start), mark);
    at = start + answer.phrase.length;
  });
  $('caption').replaceChildren(...parts, text.slice(at));
}
