// The page of step=serve: choose a photo, type phrases, see the answers. This file fills in what the server offers and
// says which event does what. state.js has the state and its jobs; each other file is one part of the page.

import { stepAnswer } from './answers.js';
import { bodyOf, request } from './client.js';
import { $, createElement, showError, showStatus } from './dom.js';
import { showDownloads } from './downloads.js';
import { draw } from './drawing.js';
import { copyLink, recall } from './links.js';
import { NAMES, comparePanels, togglePanels } from './panels.js';
import { openFiles, openSample, reopen } from './photo.js';
import { find, hasText, mode, modeChanged, score } from './question.js';
import { closeWords, listenToPointer, toggleDrawing } from './region.js';
import { begin, state } from './state.js';

function showOptions() {
  const { limits, samples, methods, method, gamma } = state.about;
  $('terms').textContent = `JPEG, PNG or WebP, up to ${limits.upload_bytes / 1e6} MB. The photo is sent to this server only, is never `
    + `written to its disk, and is deleted ${Math.round(limits.photo_seconds / 60)} minutes after your last request.`;
  for (const sample of samples) {
    const picture = createElement('img', { src: sample.picture, alt: sample.title, width: 58, height: 58 });
    const button = createElement('button', { type: 'button', title: sample.title }, picture);
    button.dataset.name = sample.name;
    button.addEventListener('click', () => openSample(sample));
    $('samples').append(button);
  }
  for (const name of methods) {
    const input = createElement('input', { type: 'radio', name: 'method', value: name, checked: name === method });
    input.addEventListener('change', () => find());
    $('methods').append(createElement('label', {}, input, createElement('span', { textContent: (NAMES[name] || [name])[0] })));
  }
  showDownloads();
  $('gamma').max = Math.max(1, gamma);
  $('gamma').value = gamma;
}

function showValues() {
  const part = $('gamma').value / $('gamma').max;
  $('gamma').setAttribute('aria-valuetext', part < 0.35 ? 'whole' : part > 0.65 ? 'tight' : 'between whole and tight');
  $('count-value').textContent = $('count').value;
  $('opacity-value').textContent = `${$('opacity').value} %`;
}

function listenToQuestion() {
  $('form').addEventListener('submit', (event) => { event.preventDefault(); find(); });
  $('text').addEventListener('keydown', (event) => {
    if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    const atEnd = $('text').selectionStart === $('text').value.length;
    if (mode() === 'phrases' && hasText() && atEnd) $('text').value = `${$('text').value.trimEnd()}\n`; // the next phrase
    find();
  });
  for (const input of document.querySelectorAll('input[name=mode]')) input.addEventListener('change', modeChanged);
}

function listenToSettings() {
  for (const id of ['gamma', 'count', 'opacity']) $(id).addEventListener('input', showValues);
  for (const id of ['count', 'opacity']) $(id).addEventListener('input', draw);
  $('gamma').addEventListener('input', score);
  $('gamma').addEventListener('change', comparePanels);
  $('compare').addEventListener('click', togglePanels);
  $('close').addEventListener('click', closeWords);
  $('box').addEventListener('click', () => toggleDrawing());
  $('link').addEventListener('click', copyLink);
}

// Arrows step through the answers, and Escape ends drawing, except where the keys have another meaning.
function listenToKeys() {
  const steps = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 };
  document.addEventListener('keydown', (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || event.target.matches('textarea, input, select, summary')) return;
    if (event.key === 'Escape') toggleDrawing(false);
    if (!steps[event.key] || !state.answers.length) return;
    event.preventDefault();
    stepAnswer(steps[event.key]);
  });
}

function listenToFiles() {
  for (const id of ['choose', 'another']) $(id).addEventListener('click', () => $('file').click());
  $('file').addEventListener('change', () => { const files = [...$('file').files]; $('file').value = ''; if (files.length) openFiles(files); });
  for (const type of ['dragover', 'dragleave', 'drop']) {
    document.addEventListener(type, (event) => {
      if (event.target === $('text') && !event.dataTransfer.types.includes('Files')) return; // text for the question
      event.preventDefault();
      $('stage').classList.toggle('over', type === 'dragover');
      if (type === 'drop') openFiles([...event.dataTransfer.files]);
    });
  }
  document.addEventListener('paste', (event) => { if (event.clipboardData.files.length) openFiles([...event.clipboardData.files]); });
}

// Opens what the address names, at the start and when the visitor enters another link.
function restore() {
  const { sample, photo, phrases } = recall();
  showValues();
  if (sample && sample.name === state.sample?.name) find();
  else if (sample) openSample(sample, phrases);
  else if (state.photo) find();
  else if (photo) reopen(photo);
  else if (hasText()) showStatus('choose a photo to find these phrases in');
}

async function load() {
  try {
    const signal = begin('load');
    state.about = await bodyOf(await request('/api/about', {}, signal), 'json', signal);
  } catch (error) {
    setTimeout(load, 2000);
    showError(error);
    return;
  }
  showError(null);
  showOptions();
  addEventListener('hashchange', restore);
  restore();
}

listenToQuestion();
listenToSettings();
listenToKeys();
listenToPointer();
listenToFiles();
modeChanged();
load();
