// Elements, messages and colours of the page.

import { StaleReply, isAbsent, state } from './state.js';

export const $ = (id) => document.getElementById(id);
export const ABSENT = 'probably not in this photo';
const GREY = '#9a9a9a'; // of what is probably not in the photo, as in the downloads
export const colour = (i) => (isAbsent(state.answers[i]) ? GREY : state.about.colours[i % state.about.colours.length]);

export class RequestError extends Error {
  constructor(status, message) { super(message); this.status = status; }
}

export function showStatus(text) { $('status').textContent = text; }

export function showError(error) {
  if (error instanceof StaleReply) return;
  $('problem').hidden = !error;
  $('problem').textContent = error ? error.message : '';
  if (error) showStatus('');
  if (error && !(error instanceof RequestError)) throw error;
}

export function createElement(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

// Tries again if the picture fails to load, because the server may be busy.
export function heatMap(src, alt = '') {
  const image = createElement('img', { src, alt, className: 'heat' });
  let tries = 5;
  image.addEventListener('error', () => { if (tries--) setTimeout(() => { image.src = image.src; }, 1000); });
  return image;
}

export function seconds(since) { return `${((performance.now() - since) / 1000).toFixed(2)} s`; }
