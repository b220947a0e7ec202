// The page of step=serve: choose a photo, type phrases, see the answers.

import { request, requestPhoto, uploadPhoto } from './client.js';
import { $, ABSENT, MAX_BOXES, RequestError, colour, showError, heatMap, createElement, isAbsent, showStatus, seconds, state } from './common.js';
import { draw } from './drawing.js';
import { NAMES, comparePanels } from './panels.js';

// ---- the photo ----

let opened = 0, uploading = null; // the number of the last photo, and its upload
async function openPhoto(blob, sample = null) {
  showError(null);
  const { upload_bytes: maxBytes } = state.about.limits;
  if (blob.size > maxBytes) return showError(new RequestError(413, `the photo has more than ${maxBytes / 1e6} MB: choose a smaller one`));
  const since = performance.now(), number = ++opened;
  uploading?.abort();
  uploading = new AbortController();
  showStatus('analysing the photo …');
  let photo;
  try {
    photo = await uploadPhoto(blob, uploading.signal);
  } catch (error) {
    if (number === opened) showError(error); // the photo before stays, with its answers
    return;
  }
  if (number !== opened) return;
  if (state.url) URL.revokeObjectURL(state.url);
  lastQuestion++;
  Object.assign(state, { number, blob, sample, photo, url: URL.createObjectURL(blob), answers: [], question: null, drawn: null });
  $('photo').src = state.url;
  $('photo').alt = sample ? sample.title : blob.name || 'the photo';
  $('drop').hidden = true;
  $('view').hidden = false;
  lastWords++;
  $('words').hidden = true;
  $('panels').hidden = true;
  showSamples();
  if (sample) $('text').value = mode() === 'caption' ? sample.phrases.join(' and ') : sample.phrases.join('\n');
  showAnswers();
  $('name').textContent = `${blob.name || 'photo'}, ${state.photo.width} × ${state.photo.height}`;
  $('controls').hidden = false;
  $('find').disabled = false;
  showStatus(`analysed in ${seconds(since)}`);
  if (hasText()) await find();
  else $('text').focus();
}

// Formats that only the browser can read, such as GIF, are sent as PNG: of an animation, the first picture.
async function asPhoto(file) {
  if (!file.type || ['image/jpeg', 'image/png', 'image/webp'].includes(file.type)) return file;
  const bitmap = await createImageBitmap(file).catch(() => { throw new RequestError(415, `${file.name} is not a photo that can be read: choose a JPEG, PNG or WebP`); });
  const canvas = createElement('canvas', { width: bitmap.width, height: bitmap.height });
  canvas.getContext('2d').drawImage(bitmap, 0, 0);
  const blob = await new Promise((done) => canvas.toBlob(done, 'image/png'));
  return new File([blob], `${file.name}.png`, { type: 'image/png' });
}

async function openFiles(files) {
  if (!files.length) return showError(new RequestError(0, 'this is no file: save the photo, then drop the file here'));
  try {
    await openPhoto(await asPhoto(files[0]));
    if (files.length > 1) showError(new RequestError(0, `only the first of ${files.length} files was opened`));
  } catch (error) {
    showError(error);
  }
}

async function openSample(sample) {
  const blob = await (await request(sample.picture)).blob();
  await openPhoto(new File([blob], `${sample.name}.${blob.type.split('/')[1]}`, { type: blob.type }), sample);
}

function showSamples() {
  for (const button of $('samples').querySelectorAll('button')) {
    button.setAttribute('aria-pressed', String(state.sample?.name === button.dataset.name));
  }
}

// ---- questions and answers ----

const mode = () => document.querySelector('input[name=mode]:checked').value;
const method = () => document.querySelector('input[name=method]:checked').value;
const lines = () => $('text').value.split('\n').map((line) => line.trim()).filter(Boolean);
const hasText = () => lines().length > 0;

function question(more = {}) {
  const what = mode() === 'caption' ? { caption: lines().join(' ') } : { phrases: lines() };
  return { ...what, method: method(), gamma: Number($('gamma').value), boxes: MAX_BOXES, ...more };
}

let lastQuestion = 0; // answers to an earlier question are not shown
async function find(quiet = false) {
  if (!state.photo || !hasText()) return;
  const number = ++lastQuestion, since = performance.now(), current = question();
  if (!quiet) showStatus('searching …');
  try {
    const { answers } = await (await requestPhoto('ground', current)).json();
    if (number !== lastQuestion) return;
    const same = answers.length === state.answers.length && answers.every((a, i) => a.phrase === state.answers[i].phrase);
    Object.assign(state, { answers, question: current });
    if (!same || !answers[state.selected]?.groundable) state.selected = first(answers);
    showError(null);
    if (same && quiet) showScores(); else showAnswers();
    showStatus(`${answers.length} ${answers.length === 1 ? 'phrase' : 'phrases'} in ${seconds(since)}`);
    if (!$('panels').hidden && !quiet) comparePanels();
  } catch (error) {
    if (number === lastQuestion) showError(error);
  }
}

// Of the phrases with a box, the first that is in the photo, or else the first one.
function first(answers) {
  const found = answers.findIndex((answer) => answer.groundable && !isAbsent(answer));
  return found < 0 ? answers.findIndex((answer) => answer.groundable) : found;
}

// Moving the slider sends one request at a time, and at the end one for the last value.
let scoring = false, again = false;
async function score() {
  if (scoring) { again = true; return; }
  scoring = true;
  do { again = false; await find(true); } while (again);
  scoring = false;
}

function showAnswers() {
  if (!state.answers.length) { state.selected = -1; state.hovered = -1; }
  $('answers').replaceChildren(...state.answers.map(answerItem));
  showCaption();
  draw();
}

function showScores() {
  [...$('answers').children].forEach((item, i) => {
    const score = item.querySelector('.score');
    if (score) score.textContent = scored(state.answers[i]);
  });
  draw();
}

const scored = ({ scores: [best], presence }) => `score ${best.toFixed(3)}${presence === null ? '' : `, presence ${presence.toFixed(2)}`}`;

function answerItem(answer, i) {
  const item = createElement('li', { className: isAbsent(answer) ? 'absent' : '' });
  item.style.setProperty('--colour', colour(i));
  const phrase = createElement('button', { type: 'button', className: 'phrase', textContent: answer.phrase });
  phrase.addEventListener('click', () => { state.selected = state.selected === i ? -1 : i; draw(); });
  phrase.disabled = !answer.groundable;
  const about = createElement('div', { className: 'about' }, createElement('p', {}, phrase), ...notes(answer));
  if (answer.groundable) about.append(wordsLink(i));
  item.append(thumb(answer), about);
  for (const [event, hovered] of [['pointerenter', i], ['pointerleave', -1], ['focusin', i], ['focusout', -1]]) {
    item.addEventListener(event, () => { state.hovered = answer.groundable ? hovered : -1; draw(); });
  }
  return item;
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
  else notes.push(createElement('small', { textContent: 'not groundable: none of its words is in the vocabulary' }));
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

// ---- words of a box ----

let lastWords = 0; // words of an earlier box are not shown
async function showWords(box) {
  const number = ++lastWords;
  if ($('words').hidden) $('found').replaceChildren(createElement('li', { className: 'quiet', textContent: 'computing all words, this takes some seconds …' }));
  $('words').hidden = false;
  $('words').classList.add('waiting');
  draw();
  try {
    const { words } = await (await requestPhoto('words', { box, count: 8 })).json();
    if (number !== lastWords) return;
    $('found').replaceChildren(...words.map(wordItem));
  } catch (error) {
    if (number !== lastWords) return;
    $('words').hidden = true;
    showError(error);
  }
  $('words').classList.remove('waiting');
}

function wordItem({ word, share }) {
  const button = createElement('button', { type: 'button', className: 'link', textContent: word });
  button.addEventListener('click', () => {
    document.querySelector('input[value=phrases]').checked = true;
    if (state.question?.caption) $('text').value = '';
    if (!lines().includes(word)) $('text').value = [...lines(), word].join('\n');
    changeMode();
    find();
  });
  const bar = createElement('i');
  bar.style.width = `${Math.max(2, 100 * share)}%`;
  return createElement('li', {}, button, createElement('div', {}, bar), createElement('span', { textContent: `${(100 * share).toFixed(0)} %` }));
}

function place(event) {
  const { left, top, width, height } = $('frame').getBoundingClientRect();
  const clamp = (value) => Math.min(1, Math.max(0, value));
  return [clamp((event.clientX - left) / width) * state.photo.width, clamp((event.clientY - top) / height) * state.photo.height];
}

// A drag selects a box. A click selects the smallest answer's box there.
let start = null;
const drawing = () => $('box').getAttribute('aria-pressed') === 'true';
function press(event) {
  if (!state.photo || event.button) return;
  start = place(event);
  $('frame').setPointerCapture(event.pointerId);
}

function between([x1, y1], [x2, y2]) {
  return [Math.min(x1, x2), Math.min(y1, y2), Math.max(x1, x2), Math.max(y1, y2)];
}

function drag(event) {
  if (!start || !drawing()) return;
  state.drawn = between(start, place(event));
  draw();
}

function release(event) {
  if (!start) return;
  const box = between(start, place(event)), [x, y] = start, { width, height } = state.photo;
  start = null;
  const minSide = 0.015 * Math.max(width, height);
  if (box[2] - box[0] > minSide && box[3] - box[1] > minSide && drawing()) state.drawn = box;
  else {
    state.drawn = null;
    state.selected = smallestAt(x, y);
    return draw(); // a click only selects
  }
  showWords(state.drawn);
}

function smallestAt(x, y) {
  const area = ({ boxes: [[x1, y1, x2, y2]] }) => (x2 - x1) * (y2 - y1);
  const holds = ({ boxes: [box] }) => box && x >= box[0] && x < box[2] && y >= box[1] && y < box[3];
  const found = state.answers.filter(holds).sort((a, b) => area(a) - area(b));
  return state.answers.indexOf(found[0]);
}

// ---- downloads ----

async function download(kind) {
  if (!state.question) return showError(new RequestError(422, 'find a phrase first'));
  try {
    const response = await requestPhoto(`exports/${kind}`, { ...state.question, boxes: Number($('count').value) });
    const url = URL.createObjectURL(await response.blob());
    const stem = state.photo.name.replace(/\.[^.]*$/, '') || 'photo';
    createElement('a', { href: url, download: `${stem}.${kind}` }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
    const left = kind === 'coco.json' ? state.answers.filter(isAbsent).length : 0;
    if (left) showStatus(`${left} of the phrases ${left === 1 ? 'has' : 'have'} no box in the file: ${ABSENT}`);
  } catch (error) {
    showError(error);
  }
}

// ---- setup ----

function changeMode() {
  const caption = mode() === 'caption';
  $('text').placeholder = caption ? 'A man in a red shirt rides a brown horse past a white house.' : 'a man in a red shirt\nhis horse';
  document.querySelector('label[for=text]').textContent = caption ? 'A caption' : 'Phrases, one on each line';
}

function showValues() {
  $('gamma-value').textContent = Number($('gamma').value).toFixed(2);
  $('count-value').textContent = $('count').value;
  $('opacity-value').textContent = `${$('opacity').value} %`;
}

function showOptions(about) {
  state.about = about;
  const { limits, samples } = about;
  $('terms').textContent = `JPEG, PNG or WebP, up to ${limits.upload_bytes / 1e6} MB. The photo is sent to this server only, is never `
    + `written to its disk, and is deleted ${Math.round(limits.photo_seconds / 60)} minutes after your last request.`;
  for (const sample of samples) {
    const picture = createElement('img', { src: sample.picture, alt: sample.title, width: 58, height: 58 });
    const button = createElement('button', { type: 'button', title: sample.title }, picture);
    button.dataset.name = sample.name;
    button.addEventListener('click', () => openSample(sample).catch(showError));
    $('samples').append(button);
  }
  for (const name of about.methods) {
    const input = createElement('input', { type: 'radio', name: 'method', value: name, checked: name === about.method });
    input.addEventListener('change', () => find());
    $('methods').append(createElement('label', {}, input, createElement('span', { textContent: (NAMES[name] || [name])[0] })));
  }
  for (const [kind, title] of Object.entries(about.exports)) {
    const button = createElement('button', { type: 'button', className: 'plain', textContent: title });
    button.addEventListener('click', () => download(kind));
    $('downloads').append(button);
  }
  $('gamma').max = Math.max(1, about.gamma);
  $('gamma').value = about.gamma;
  showValues();
}

function addListeners() {
  $('form').addEventListener('submit', (event) => { event.preventDefault(); find(); });
  $('text').addEventListener('keydown', (event) => {
    if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) { event.preventDefault(); find(); }
  });
  $('text').addEventListener('input', (event) => { if (event.inputType === 'insertLineBreak') find(); });
  for (const input of document.querySelectorAll('input[name=mode]')) input.addEventListener('change', changeMode);
  for (const id of ['choose', 'another']) $(id).addEventListener('click', () => $('file').click());
  $('file').addEventListener('change', () => { const files = [...$('file').files]; $('file').value = ''; if (files.length) openFiles(files); });
  for (const id of ['gamma', 'count', 'opacity']) $(id).addEventListener('input', showValues);
  for (const id of ['count', 'opacity']) $(id).addEventListener('input', draw);
  $('gamma').addEventListener('input', score);
  $('gamma').addEventListener('change', comparePanels);
  $('compare').addEventListener('click', () => {
    $('compare').setAttribute('aria-expanded', String($('compare').getAttribute('aria-expanded') !== 'true'));
    comparePanels();
  });
  $('close').addEventListener('click', () => { $('words').hidden = true; state.drawn = null; draw(); });
  $('box').addEventListener('click', () => {
    $('box').setAttribute('aria-pressed', String(!drawing()));
    $('frame').classList.toggle('drawing', drawing());
    $('hint').hidden = !drawing();
  });
  addPhotoListeners();
  addFrameListeners();
}

function addPhotoListeners() {
  for (const event of ['dragover', 'dragleave', 'drop']) {
    document.addEventListener(event, (moved) => {
      moved.preventDefault();
      $('stage').classList.toggle('over', event === 'dragover');
    });
  }
  document.addEventListener('drop', (event) => { openFiles([...event.dataTransfer.files]); });
  document.addEventListener('paste', (event) => { if (event.clipboardData.files.length) openFiles([...event.clipboardData.files]); });
}

function addFrameListeners() {
  const frame = $('frame');
  frame.addEventListener('pointerdown', press);
  frame.addEventListener('pointermove', drag);
  frame.addEventListener('pointerup', release);
  frame.addEventListener('pointercancel', () => { start = null; state.drawn = null; draw(); });
  frame.addEventListener('dragstart', (event) => event.preventDefault());
  new ResizeObserver(draw).observe(frame);
}

addListeners();
changeMode();
$('find').disabled = true;
function load() {
  request('/api/about').then((response) => response.json()).then((about) => { showError(null); showOptions(about); })
    .catch((error) => { setTimeout(load, 2000); showError(error); });
}
load();
