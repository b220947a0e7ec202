// The state of the page, and the jobs that may change it. All other files read and change this one state.

export const state = {
  about: null, // what the server offers
  photo: null, blob: null, url: null, sample: null, // the server's reply about the photo, its file, its address, its sample
  question: null, answers: [], // the last question that was answered, and its answers
  selected: -1, hovered: -1, drawn: null, // indices of answers (-1: none), and the box that the user has drawn
};

// The reply to a job that was cancelled. It is dropped.
export class StaleReply extends Error {}

// One job of a kind runs at a time: a new one cancels the one before. A job whose signal is aborted changes nothing.
const jobs = {}; // upload, question, words, panels, download, prefetch: their abort controllers

export function begin(kind) {
  jobs[kind]?.abort(new StaleReply());
  jobs[kind] = new AbortController();
  return jobs[kind].signal;
}

export function cancel(...kinds) { for (const kind of kinds) jobs[kind]?.abort(new StaleReply()); }

// A new photo replaces the one before together with all that was asked about it.
export function replacePhoto({ photo, blob, sample }) {
  cancel('question', 'words', 'panels', 'download', 'prefetch');
  if (state.url) URL.revokeObjectURL(state.url);
  Object.assign(state, { photo, blob, sample, url: URL.createObjectURL(blob), drawn: null });
  replaceAnswers(null, []);
}

export function replaceAnswers(question, answers) {
  const same = samePhrases(answers, state.answers);
  Object.assign(state, { question, answers });
  if (!same || !answers[state.selected]?.groundable) state.selected = first(answers);
  state.hovered = -1;
}

export const samePhrases = (a, b) => a.length === b.length && a.every((answer, i) => answer.phrase === b[i].phrase);

// Of the phrases with a box, the first that is in the photo, or else the first one.
function first(answers) {
  const found = answers.findIndex((answer) => answer.groundable && !isAbsent(answer));
  return found < 0 ? answers.findIndex((answer) => answer.groundable) : found;
}

export const active = () => (state.hovered >= 0 ? state.hovered : state.selected);
export const isAbsent = (answer) => answer?.present === false; // null: unknown

// The answer after the selected one in a direction (1, -1), without those that have no box.
export function step(direction) {
  const shown = state.answers.map((answer, i) => (answer.groundable ? i : -1)).filter((i) => i >= 0);
  if (!shown.length) return;
  const at = shown.indexOf(state.selected);
  state.selected = shown[(at < 0 && direction < 0 ? 0 : at + direction + shown.length) % shown.length];
  state.hovered = -1;
}
