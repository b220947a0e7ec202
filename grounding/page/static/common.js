// What all parts of the page share.

export const MOST = 10; // boxes a phrase
export const $ = (id) => document.getElementById(id);
export const colour = (i) => state.about.colours[i % state.about.colours.length];

export const state = {
  about: null, blob: null, url: null, photo: null, sample: null, // the photo as a file, and as the server knows it
  question: null, answers: [], // what was asked last, and what came
  selected: -1, hovered: -1, drawn: null, // which answer is lit, and the box that was drawn
};

export class Refusal extends Error {
  constructor(status, message) { super(message); this.status = status; }
}

export function say(text) { $('status').textContent = text; }

export function complain(error) {
  $('problem').hidden = !error;
  $('problem').textContent = error ? error.message : '';
  if (error) say('');
  if (error && !(error instanceof Refusal)) throw error;
}

export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

// A busy server gives no picture at first.
export function heatMap(src, alt = '') {
  const image = make('img', { src, alt, className: 'heat' });
  let tries = 5;
  image.addEventListener('error', () => { if (tries--) setTimeout(() => { image.src = image.src; }, 1000); });
  return image;
}

export function seconds(since) { return `${((performance.now() - since) / 1000).toFixed(2)} s`; }
