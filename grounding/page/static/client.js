// Sends requests to the HTTP API. Each belongs to a job; if the job is cancelled, the request ends with StaleReply.

import { RequestError, showStatus } from './dom.js';
import { state } from './state.js';

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

export async function request(path, options, signal, tries = 5) {
  const failed = () => { signal.throwIfAborted(); throw new RequestError(0, 'the server does not respond: check that it is running'); };
  const response = await fetch(path, { ...options, signal }).catch(failed);
  signal.throwIfAborted();
  if (response.ok) return response;
  const body = await response.json().catch(() => ({}));
  signal.throwIfAborted();
  if (response.status === 503 && tries > 1) {
    showStatus('the server is busy, trying again …');
    await pause(1000 * (Number(response.headers.get('retry-after')) || 1));
    signal.throwIfAborted();
    return request(path, options, signal, tries - 1);
  }
  throw new RequestError(response.status, body.error || `the server responds with status ${response.status}`);
}

// Reads the body of a response: read is 'json' or 'blob'.
export async function bodyOf(response, read, signal) {
  const body = await response[read]().catch((error) => { signal.throwIfAborted(); throw new RequestError(0, `the reply of the server was cut off: ${error.message}`); });
  signal.throwIfAborted();
  return body;
}

export async function uploadPhoto(blob, signal) {
  const query = new URLSearchParams({ name: (blob.name || 'photo').slice(-200) });
  const headers = { 'content-type': blob.type || 'application/octet-stream' };
  return bodyOf(await request(`/api/photos?${query}`, { method: 'POST', body: blob, headers }, signal), 'json', signal);
}

// Asks about the photo. The server deletes a photo after a while; then the photo is sent again.
export async function requestPhoto(path, value, signal, tries) {
  const options = { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(value) };
  const once = () => request(`/api/photos/${state.photo.token}/${path}`, options, signal, tries);
  try {
    return await once();
  } catch (error) {
    if (error.status !== 404) throw error;
    state.photo = await uploadPhoto(state.blob, signal);
    return once();
  }
}
