// What survives a reload, and what a link contains. The part of the address after # has the phrases and settings; it is
// never sent to the server. The token of the photo is a secret, so only this tab keeps it.

import { $, showStatus } from './dom.js';
import { lines, mode, modeChanged } from './question.js';
import { state } from './state.js';

// Writes down the photo, and what was asked; before the first question, what is typed.
export function remember() {
  const { about, sample, photo } = state;
  const typed = mode() === 'caption' ? { caption: lines().join(' ') } : { phrases: lines() };
  const question = state.question ?? { ...typed, gamma: about.gamma, method: about.method };
  const asked = new URLSearchParams();
  if (sample) asked.set('sample', sample.name);
  if (question.caption) asked.set('caption', question.caption);
  for (const phrase of question.phrases ?? []) asked.append('phrase', phrase);
  if (question.gamma !== about.gamma) asked.set('gamma', question.gamma);
  if (question.method !== about.method) asked.set('method', question.method);
  history.replaceState(null, '', `#${asked}`);
  try { // a browser may forbid it
    if (photo && !sample) sessionStorage.setItem('photo', JSON.stringify(photo)); else sessionStorage.removeItem('photo');
  } catch { /* then a reload restores the phrases only */ }
}

// Puts the phrases and settings of the address on the page. Returns {sample, photo, phrases}: what to open.
export function recall() {
  const asked = new URLSearchParams(location.hash.slice(1)), { about } = state;
  const caption = asked.get('caption'), phrases = asked.getAll('phrase').slice(0, about.limits.phrases);
  if (caption || phrases.length) {
    document.querySelector(`input[value=${caption ? 'caption' : 'phrases'}]`).checked = true;
    modeChanged();
    $('text').value = caption ?? phrases.join('\n');
  }
  if (asked.has('gamma')) $('gamma').value = asked.get('gamma'); // the slider keeps it in its range
  const chosen = [...document.querySelectorAll('input[name=method]')].find((input) => input.value === asked.get('method'));
  if (chosen) chosen.checked = true;
  const sample = about.samples.find(({ name }) => name === asked.get('sample'));
  return { sample, photo: sample ? null : stored(), phrases: caption || phrases.length ? null : undefined };
}

function stored() {
  try {
    const photo = JSON.parse(sessionStorage.getItem('photo'));
    return typeof photo?.token === 'string' && typeof photo.name === 'string' ? photo : null;
  } catch {
    return null;
  }
}

// Copies the address. The clipboard may be forbidden; then the address line has the link.
export async function copyLink() {
  const what = state.sample ? 'it opens this sample with the phrases' : 'it has the phrases, but not your photo';
  try {
    await navigator.clipboard.writeText(location.href);
    showStatus(`link copied: ${what}`);
  } catch {
    showStatus(`copy the address of this page: ${what}`);
  }
}
