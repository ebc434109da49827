// Keyboard: / goes to search; j, k and arrows move between rows; e jumps to the next failure. Enter opens: rows are links.
// x ticks a row; on a run f shows failures only, z fits, r and c lead to replay and cancel, [ and ] to the neighbours in
// the list somebody came from, ? lists all keys. Nothing here changes a run by itself.
// Keys of one letter or sign can be switched off (WCAG 2.1.4); the cookie goes with the theme's.
const isOn = () => !/(?:^|; )keys=off/.test(document.cookie);
addEventListener('change', (e) => {
  if (!e.target.matches?.('[data-keys-on]')) return;
  const secure = location.protocol === 'https:' ? ';secure' : '';
  document.cookie = `keys=off;path=/;max-age=${e.target.checked ? 0 : 31536000};samesite=lax${secure}`;
});
const shown = () => { for (const box of document.querySelectorAll('[data-keys-on]')) box.checked = isOn(); };
shown();
addEventListener('htmx:after:swap', shown);
addEventListener('click', (e) => {
  if (!e.target.closest?.('#rows tr')) return;
  sessionStorage.setItem('run-list', JSON.stringify([...document.querySelectorAll('#rows .fn a')].map((a) => a.getAttribute('href'))));
}, true);
const neighbour = (by) => {
  const list = JSON.parse(sessionStorage.getItem('run-list') ?? '[]'), at = list.indexOf(location.pathname);
  return at < 0 ? null : list[at + by];
};
const single = {
  '?': () => document.getElementById('keys')?.showModal(),
  f: () => document.getElementById('failed-only')?.click(),
  z: () => document.querySelector('[data-zoom=fit]')?.click(),
  r: () => document.getElementById('replay-run')?.focus(),
  c: () => document.getElementById('cancel-run')?.click(),
  x: () => document.activeElement.closest?.('#rows tr')?.querySelector('[name=run]')?.click(),
  '[': () => { const to = neighbour(-1); if (to) location.assign(to); },
  ']': () => { const to = neighbour(1); if (to) location.assign(to); },
};
const rows = () => [...document.querySelectorAll('.tbl .fn a, .tl .nm')].filter((r) => r.offsetParent);
const isTyping = (t) => t.matches?.('input, textarea, select, [contenteditable]');
addEventListener('keydown', (e) => {
  if (isTyping(e.target) || e.metaKey || e.ctrlKey || e.altKey || document.querySelector('dialog[open]')) return;
  if (!isOn() && e.key.length === 1) return;
  const search = document.getElementById('q');
  if (e.key === '/' && search) { e.preventDefault(); search.focus(); return; }
  if (single[e.key]) { e.preventDefault(); single[e.key](); return; }
  const all = rows(), at = all.indexOf(document.activeElement);
  if (e.key === 'e') {
    const next = all.find((r, i) => i > at && r.querySelector('.k.fail')) ?? all.find((r) => r.querySelector('.k.fail'));
    if (next) { e.preventDefault(); next.focus(); }
    return;
  }
  const step = { j: 1, ArrowDown: 1, k: -1, ArrowUp: -1 }[e.key];
  if (step && all.length && !(e.key.startsWith('Arrow') && at < 0)) {
    e.preventDefault();
    all[Math.max(0, Math.min(all.length - 1, at + step))].focus();
    return;
  }
  const fold = { ArrowLeft: 'true', ArrowRight: 'false' }[e.key];
  const toggle = fold && document.activeElement.closest?.('li')?.querySelector(':scope > .grid > .tw');
  if (toggle && toggle.getAttribute('aria-expanded') === fold) { e.preventDefault(); toggle.click(); }
});
