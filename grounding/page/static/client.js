// Sends requests to the HTTP API.

import { RequestError, StaleReply, showStatus, state } from './common.js';

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

export async function request(path, options = {}, tries = 5) {
  const response = await fetch(path, options).catch(() => { throw new RequestError(0, 'the server does not respond: check that it is running'); });
  if (response.ok) return response;
  const body = await response.json().catch(() => ({}));
  if (response.status === 503 && tries > 1) {
    showStatus('the server is busy, trying again …');
    await pause(1000 * (Number(response.headers.get('retry-after')) || 1));
    return request(path, options, tries - 1);
  }
  throw new RequestError(response.status, body.error || `the server responds with status ${response.status}`);
}

export const asJson = (value) => ({ method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(value) });

export async function uploadPhoto(blob, signal) {
  const query = new URLSearchParams({ name: (blob.name || 'photo').slice(-200) });
  const headers = { 'content-type': blob.type || 'application/octet-stream' };
  return (await request(`/api/photos?${query}`, { method: 'POST', body: blob, headers, signal })).json();
}

// The server deletes a photo after a while. Then the photo is sent again.
export async function requestPhoto(path, value) {
  const { number, blob } = state;
  const current = (reply) => { if (number !== state.number) throw new StaleReply(); return reply; };
  const once = () => request(`/api/photos/${state.photo.token}/${path}`, asJson(value));
  return current(await once().catch(async (error) => {
    current();
    if (error.status !== 404 || !blob) throw error;
    const photo = await uploadPhoto(blob);
    current();
    state.photo = photo;
    return once();
  }));
}
