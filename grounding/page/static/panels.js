// The boxes of all methods side by side.

import { bodyOf, requestPhoto } from './client.js';
import { $, RequestError, colour, createElement, heatMap, showError } from './dom.js';
import { rectangle } from './drawing.js';
import { begin, state } from './state.js';

export const NAMES = {
  'c-mwp': ['c-MWP', 'excitation, contrastive'], 'c-mwp-partial': ['c-MWP, partial', 'excitation, partly contrastive'], 'mwp': ['MWP', 'excitation'],
  'grad': ['Grad', 'gradient'], 'cam': ['CAM', 'class activation'],
};

const wanted = () => $('compare').getAttribute('aria-expanded') === 'true';

export function togglePanels() {
  $('compare').setAttribute('aria-expanded', String(!wanted()));
  return comparePanels();
}

export async function comparePanels() {
  const signal = begin('panels'), chosen = state.answers[state.selected] || state.answers.find((answer) => answer.groundable);
  $('panels').hidden = !wanted() || !chosen;
  if (!wanted()) return;
  if (!chosen) return showError(new RequestError(0, 'there is nothing to compare: find a phrase that has a box first'));
  const shade = colour(state.answers.indexOf(chosen)), asked = { gamma: Number($('gamma').value), boxes: 1, phrases: [chosen.phrase] };
  $('panels').classList.add('waiting');
  try {
    const replies = [];
    for (const method of state.about.methods) replies.push(await bodyOf(await requestPhoto('ground', { ...asked, method }, signal), 'json', signal));
    $('panels').replaceChildren(createElement('h2', { textContent: chosen.phrase }), ...replies.map((reply) => panel(reply, shade)));
  } catch (error) {
    showError(error);
  }
  if (!signal.aborted) $('panels').classList.remove('waiting');
}

function panel({ method: name, answers: [answer], photo }, shade) {
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  svg.setAttribute('viewBox', `0 0 ${photo.width} ${photo.height}`);
  svg.append(rectangle(answer.boxes[0], '#000a', 'under'), rectangle(answer.boxes[0], shade, ''));
  const [title, about] = NAMES[name] || [name, ''];
  const caption = createElement('figcaption', {}, createElement('b', { textContent: title }), createElement('span', { textContent: about }));
  return createElement('figure', {}, createElement('div', {}, createElement('img', { src: state.url, alt: `${answer.phrase} by ${title}` }), heatMap(answer.heat), svg), caption);
}
