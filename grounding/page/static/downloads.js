// Downloads the answers as a file.

import { bodyOf, requestPhoto } from './client.js';
import { $, ABSENT, RequestError, createElement, showError, showStatus } from './dom.js';
import { begin, isAbsent, state } from './state.js';

// What is downloaded is what was asked and is shown, not what was typed since.
async function download(kind) {
  if (!state.question) return showError(new RequestError(422, 'find a phrase first'));
  const signal = begin('download'), stem = state.photo.name.replace(/\.[^.]*$/, '') || 'photo';
  const left = kind === 'coco.json' ? state.answers.filter(isAbsent).length : 0;
  try {
    const response = await requestPhoto(`exports/${kind}`, { ...state.question, boxes: Number($('count').value) }, signal);
    const url = URL.createObjectURL(await bodyOf(response, 'blob', signal));
    createElement('a', { href: url, download: `${stem}.${kind}` }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
    if (left) showStatus(`${left} of the phrases ${left === 1 ? 'has' : 'have'} no box in the file: ${ABSENT}`);
  } catch (error) {
    showError(error);
  }
}

export function showDownloads() {
  for (const [kind, title] of Object.entries(state.about.exports)) {
    const button = createElement('button', { type: 'button', className: 'plain', textContent: title });
    button.addEventListener('click', () => download(kind));
    $(kind === 'png' || kind === 'svg' ? 'downloads' : 'data').append(button);
  }
}
