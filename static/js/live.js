// Live pages: say so, pause on request, and announce the end of a run once.
document.addEventListener('click', (e) => {
  const label = e.target.closest('[data-live]');
  if (!label) return;
  const isPaused = label.getAttribute('aria-pressed') !== 'true';
  label.setAttribute('aria-pressed', String(isPaused));
  label.querySelector('[data-live-word]').textContent = isPaused ? 'Paused' : 'Live';
  document.dispatchEvent(new CustomEvent('announce', { detail: isPaused ? 'Live updates paused' : 'Live updates on' }));
});

const isPaused = () => document.querySelector('[data-live][aria-pressed="true"]') !== null;

// While paused, signals pass by unheard; the next one after it fetches everything that changed meanwhile.
document.addEventListener('htmx:sse:before:message', (e) => {
  if (isPaused() && e.detail.message.event === 'changed') e.preventDefault();
});
document.addEventListener('htmx:before:request', (e) => {
  if (isPaused() && e.detail?.ctx?.sourceElement?.matches?.('[data-poll]')) e.preventDefault();
});

// The stream says `done` when the run has ended; the last changes are already on their way.
document.addEventListener('done', (e) => {
  const words = e.target.dataset?.done;
  setTimeout(() => {
    const status = document.querySelector('#run-head [data-status]')?.dataset.status;
    if (words && status) document.dispatchEvent(new CustomEvent('announce', { detail: `${words} ${status}` }));
  }, 600);
});

// After ten minutes in the background a page stops by itself and says so.
let hiddenAt = 0;
document.addEventListener('visibilitychange', () => {
  if (document.hidden) { hiddenAt = Date.now(); return; }
  const label = document.querySelector('[data-live]');
  if (hiddenAt && Date.now() - hiddenAt > 600000 && label && !isPaused()) label.click();
});
