// Opens a photo: a file that was chosen, dropped or pasted, a sample, or the photo from before a reload.

import { answersChanged } from './answers.js';
import { bodyOf, request, uploadPhoto } from './client.js';
import { $, RequestError, createElement, seconds, showError, showStatus } from './dom.js';
import { remember } from './links.js';
import { find, hasText, setText } from './question.js';
import { begin, replacePhoto, state } from './state.js';

const SENT = ['image/jpeg', 'image/png', 'image/webp'];

// Opens what get() returns: {blob, sample, photo}; photo is the server's reply if the server has the photo already.
async function open(get, then = () => {}) {
  const since = performance.now(), signal = begin('upload');
  showError(null);
  showStatus('analysing the photo …');
  try {
    if (!state.about) throw new RequestError(0, 'the server has not answered yet: try again in a moment');
    const { blob, sample = null, photo } = await get(signal);
    signal.throwIfAborted();
    const maxBytes = state.about.limits.upload_bytes;
    if (blob.size > maxBytes) throw new RequestError(413, `the photo has more than ${maxBytes / 1e6} MB: choose a smaller one`);
    replacePhoto({ photo: photo ?? await uploadPhoto(blob, signal), blob, sample });
  } catch (error) {
    return showError(error); // the photo before stays, with its answers
  }
  photoChanged();
  showStatus(`analysed in ${seconds(since)}`);
  then();
  if (hasText()) await find();
  else if (matchMedia('(hover: hover)').matches) $('text').focus(); // on a phone, the keyboard would hide the photo
}

export const openFiles = (files) => open(async () => {
  if (!files.length) throw new RequestError(0, 'this is no file: save the photo, then drop the file here');
  return { blob: await asPhoto(files[0]) };
}, () => { if (files.length > 1) showError(new RequestError(0, `only the first of ${files.length} files was opened`)); });

export const openSample = (sample, phrases = sample.phrases) => open(async (signal) => {
  const blob = await bodyOf(await request(sample.picture, {}, signal), 'blob', signal);
  return { blob: new File([blob], `${sample.name}.${blob.type.split('/')[1]}`, { type: blob.type }), sample };
}, () => { if (phrases) setText(phrases); });

// After a reload, the server still has the photo, unless it was deleted.
export const reopen = (photo) => open(async (signal) => {
  const gone = (error) => { throw error.status === 404 ? new RequestError(404, 'the server has deleted the photo: choose it again') : error; };
  const blob = await bodyOf(await request(`/api/photos/${photo.token}/file`, {}, signal).catch(gone), 'blob', signal);
  return { blob: new File([blob], photo.name, { type: blob.type }), photo };
});

// Formats that only the browser can read, such as GIF, are sent as PNG: of an animation, the first picture.
async function asPhoto(file) {
  if (!file.type || SENT.includes(file.type)) return file;
  const bitmap = await createImageBitmap(file).catch(() => { throw new RequestError(415, `${file.name} is not a photo that can be read: choose a JPEG, PNG or WebP`); });
  const canvas = createElement('canvas', { width: bitmap.width, height: bitmap.height });
  canvas.getContext('2d').drawImage(bitmap, 0, 0);
  const blob = await new Promise((done) => canvas.toBlob(done, 'image/png'));
  return new File([blob], `${file.name}.png`, { type: 'image/png' });
}

function photoChanged() {
  const { photo, sample, url } = state;
  $('photo').src = url;
  $('photo').alt = sample ? sample.title : photo.name;
  $('name').textContent = `${photo.name}, ${photo.width} × ${photo.height}`;
  document.body.classList.add('opened');
  $('drop').hidden = true;
  for (const id of ['view', 'controls']) $(id).hidden = false;
  for (const id of ['words', 'panels']) $(id).hidden = true;
  $('find').disabled = false;
  for (const button of $('samples').querySelectorAll('button')) {
    button.setAttribute('aria-pressed', String(sample?.name === button.dataset.name));
  }
  remember();
  answersChanged();
}
