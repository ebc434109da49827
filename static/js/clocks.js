// Time that passes on the page: elapsed labels once a second, bars that run at most four times a second.
// The server's clock counts: data-now on the page's clock element says what it was when the page was made.
const words = (ms) => {
  if (ms < 999.5) return `${Math.max(0, Math.round(ms))} ms`;
  const s = ms / 1000;
  if (s < 60) return `${Math.floor(s)} s`;
  const w = Math.floor(s);
  if (w < 3600) return `${Math.floor(w / 60)} min ${w % 60} s`;
  if (w < 86400) return `${Math.floor(w / 3600)} h ${Math.floor(w % 3600 / 60)} min`;
  return `${Math.floor(w / 86400)} d ${Math.floor(w % 86400 / 3600)} h`;
};
const ago = (ms) => {
  const s = Math.floor(ms / 1000);
  if (s < 2) return 'just now';
  if (s < 60) return `${s} s ago`;
  if (s < 3600) return `${Math.floor(s / 60)} min ago`;
  return s < 86400 ? `${Math.floor(s / 3600)} h ago` : null;
};

let offset = 0, seen = null;
const now = () => {
  const made = document.querySelector('[data-now]')?.dataset.now;
  if (made && made !== seen) { seen = made; offset = Number(made) - Date.now(); }
  return Date.now() + offset;
};

const tick = () => {
  if (document.hidden) return;
  const t = now();
  for (const el of document.querySelectorAll('[data-elapsed]')) el.textContent = words(t - Number(el.dataset.elapsed));
  for (const el of document.querySelectorAll('[data-remaining]')) el.textContent = words(Math.max(0, Number(el.dataset.remaining) - t));
  for (const el of document.querySelectorAll('[data-ago]')) { const w = ago(t - Number(el.dataset.ago)); if (w) el.textContent = w; }
};
setInterval(tick, 1000);

// Times of day are written in UTC, and say so. Who chose local time in the profile gets them, and their titles, in it.
const day = { day: 'numeric', month: 'short', year: 'numeric' }, clock = { hour: '2-digit', minute: '2-digit', second: '2-digit', fractionalSecondDigits: 3, hourCycle: 'h23' };
const told = (at, parts) => new Intl.DateTimeFormat('en-GB', parts).format(at);
const localise = () => {
  if (document.documentElement.dataset.zone !== 'local') return;
  for (const el of document.querySelectorAll('time[datetime]:not([data-local])')) {
    const at = new Date(el.dateTime);
    if (Number.isNaN(at.getTime())) continue;
    el.dataset.local = '';
    el.title = told(at, { ...day, ...clock, timeZoneName: 'short' });
    if ('clock' in el.dataset) el.textContent = told(at, el.textContent.includes('UTC') ? { ...clock, timeZoneName: 'short' } : clock);
  }
};
localise();
document.addEventListener('htmx:after:swap', localise);

// --grow is the distance, in percent of the track, that time has moved since the timeline was drawn.
const still = matchMedia('(prefers-reduced-motion: reduce)');
let drawn = 0;
const grow = (at) => {
  requestAnimationFrame(grow);
  if (at - drawn < 250) return;
  drawn = at;
  const tl = document.querySelector('[data-tl][data-rate]');
  if (!tl) return;
  const percent = still.matches ? 0 : Math.max(0, now() - Number(tl.dataset.drawn)) * Number(tl.dataset.rate);
  tl.style.setProperty('--grow', `${Math.min(percent, Number(tl.dataset.room)).toFixed(3)}%`);
};
requestAnimationFrame(grow);
