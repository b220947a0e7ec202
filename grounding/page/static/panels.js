// The boxes of all methods side by side.

import { requestPhoto } from './client.js';
import { $, RequestError, colour, createElement, heatMap, showError, state } from './common.js';
import { rectangle } from './drawing.js';

export const NAMES = {
  'c-mwp': ['c-MWP', 'excitation, contrastive'], 'c-mwp-partial': ['c-MWP, partial', 'excitation, partly contrastive'], 'mwp': ['MWP', 'excitation'],
  'grad': ['Grad', 'gradient'], 'cam': ['CAM', 'class activation'],
};

export async function comparePanels() {
  const phrase = (state.answers[state.selected] || state.answers.find((answer) => answer.groundable))?.phrase;
  $('panels').hidden = $('compare').getAttribute('aria-expanded') !== 'true' || !phrase;
  if (!phrase && $('compare').getAttribute('aria-expanded') === 'true') {
    showError(new RequestError(0, 'there is nothing to compare: find a phrase that has a box first'));
  }
  if ($('panels').hidden) return;
  const { url } = state, shade = colour(state.answers.findIndex((answer) => answer.phrase === phrase));
  $('panels').classList.add('waiting');
  try {
    const asked = { gamma: Number($('gamma').value), boxes: 1, phrases: [phrase] };
    const replies = [];
    for (const name of state.about.methods) replies.push(await (await requestPhoto('ground', { ...asked, method: name })).json());
    if (url === state.url) $('panels').replaceChildren(createElement('h2', { textContent: phrase }), ...replies.map((reply) => panel(reply, shade)));
  } catch (error) {
    showError(error);
  }
  $('panels').classList.remove('waiting');
}

function panel({ method: name, answers: [answer], photo }, shade) {
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  svg.setAttribute('viewBox', `0 0 ${photo.width} ${photo.height}`);
  svg.append(rectangle(answer.boxes[0], '#000a', 'under'), rectangle(answer.boxes[0], shade, ''));
  const heat = heatMap(answer.heat);
  const [title, about] = NAMES[name] || [name, ''];
  const caption = createElement('figcaption', {}, createElement('b', { textContent: title }), createElement('span', { textContent: about }));
  return createElement('figure', {}, createElement('div', {}, createElement('img', { src: state.url, alt: `${answer.phrase} by ${title}` }), heat, svg), caption);
}
