// Asks where the phrases are.

import { answersChanged, scoresChanged } from './answers.js';
import { bodyOf, requestPhoto } from './client.js';
import { $, seconds, showError, showStatus } from './dom.js';
import { remember } from './links.js';
import { comparePanels } from './panels.js';
import { prefetchWords } from './region.js';
import { begin, replaceAnswers, samePhrases, state } from './state.js';

const MAX_BOXES = 10; // for each phrase

export const mode = () => document.querySelector('input[name=mode]:checked').value;
export const method = () => document.querySelector('input[name=method]:checked').value;
export const lines = () => $('text').value.split('\n').map((line) => line.trim()).filter(Boolean);
export const hasText = () => lines().length > 0;

export function setText(phrases) { $('text').value = mode() === 'caption' ? phrases.join(' and ') : phrases.join('\n'); }

function question() {
  const what = mode() === 'caption' ? { caption: lines().join(' ') } : { phrases: lines() };
  return { ...what, method: method(), gamma: Number($('gamma').value), boxes: MAX_BOXES };
}

export async function find(quiet = false) {
  if (!state.photo) return;
  if (!hasText()) {
    if (!quiet) showStatus('type what to find, one phrase on each line');
    return;
  }
  const since = performance.now(), asked = question(), signal = begin('question');
  if (!quiet) showStatus('searching …');
  try {
    const { answers } = await bodyOf(await requestPhoto('ground', asked, signal), 'json', signal);
    const same = samePhrases(answers, state.answers);
    replaceAnswers(asked, answers);
    if (!quiet) showError(null);
    if (same && quiet) scoresChanged(); else answersChanged();
    remember();
    showStatus(`${answers.length} ${answers.length === 1 ? 'phrase' : 'phrases'} in ${seconds(since)}`);
    if (!quiet) comparePanels();
    prefetchWords();
  } catch (error) {
    showError(error);
  }
}

// Moving the slider sends one request at a time, and at the end one for the last value.
let scoring = false, again = false;
export async function score() {
  if (scoring) { again = true; return; }
  scoring = true;
  try {
    do { again = false; await find(true); } while (again);
  } finally {
    scoring = false;
  }
}

// Takes a phrase out of the text, and asks for those that are left.
export function remove(phrase) {
  $('text').value = lines().filter((line) => line !== phrase).join('\n');
  if (hasText()) return find();
  begin('question');
  replaceAnswers(null, []);
  remember();
  answersChanged();
  return showStatus('');
}

// Adds a phrase to the text, and asks.
export function add(phrase) {
  document.querySelector('input[value=phrases]').checked = true;
  if (state.question?.caption) $('text').value = '';
  if (!lines().includes(phrase)) $('text').value = [...lines(), phrase].join('\n');
  modeChanged();
  return find();
}

export function modeChanged() {
  const caption = mode() === 'caption';
  $('text').placeholder = caption ? 'A man in a red shirt rides a brown horse past a white house.' : 'a man in a red shirt\nhis horse';
  document.querySelector('label[for=text]').textContent = caption ? 'A caption' : 'Phrases, one on each line';
}
