// Asking the HTTP API.

import { Refusal, say, state } from './common.js';

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

export async function ask(path, options = {}, tries = 5) {
  const response = await fetch(path, options).catch(() => { throw new Refusal(0, 'the server does not answer'); });
  if (response.ok) return response;
  const told = await response.json().catch(() => ({}));
  if (response.status === 503 && tries > 1) {
    say('the server is busy; asking again …');
    await pause(1000 * (Number(response.headers.get('retry-after')) || 1));
    return ask(path, options, tries - 1);
  }
  throw new Refusal(response.status, told.error || `the server answers ${response.status}`);
}

export const asJson = (value) => ({ method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(value) });

export async function send() {
  const query = new URLSearchParams({ name: (state.blob.name || 'photo').slice(-200) });
  const options = { method: 'POST', body: state.blob, headers: { 'content-type': state.blob.type || 'application/octet-stream' } };
  state.photo = await (await ask(`/api/photos?${query}`, options)).json();
}

// A photo is forgotten after a while; then it is sent again.
export async function askPhoto(path, value) {
  const once = () => ask(`/api/photos/${state.photo.token}/${path}`, asJson(value));
  return once().catch(async (error) => {
    if (error.status !== 404 || !state.blob) throw error;
    await send();
    return once();
  });
}
