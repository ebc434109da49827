// Ticked rows: how many, all at once, a range with Shift. Without this file the bar appears and works all the same.
const boxes = () => [...document.querySelectorAll('#list [name="run"]')];
const say = () => {
  const all = boxes(), ticked = all.filter((b) => b.checked).length;
  const number = document.querySelector('[data-count]');
  if (number) number.textContent = ticked;
  const head = document.querySelector('[data-select-all]');
  if (head) { head.checked = ticked > 0 && ticked === all.length; head.indeterminate = ticked > 0 && ticked < all.length; }
};
let last = null;
document.addEventListener('click', (e) => {
  const box = e.target.closest?.('#list [name="run"]');
  if (!box) return;
  const all = boxes(), from = all.indexOf(last), to = all.indexOf(box);
  if (e.shiftKey && from >= 0) for (const b of all.slice(Math.min(from, to), Math.max(from, to) + 1)) b.checked = box.checked;
  last = box;
});
document.addEventListener('change', (e) => {
  if (e.target.matches?.('[data-select-all]')) for (const b of boxes()) b.checked = e.target.checked;
  if (e.target.matches?.('[data-select-all], #list [name="run"]')) say();
});
document.addEventListener('reset', () => setTimeout(say));
document.addEventListener('htmx:after:swap', say);

// The run somebody came from is focused when they come back.
addEventListener('click', (e) => {
  const row = e.target.closest?.('#rows tr');
  if (row) sessionStorage.setItem('run-left', row.id);
}, true);
const back = () => {
  const id = sessionStorage.getItem('run-left'), row = id && document.getElementById(id);
  if (!row) return;
  sessionStorage.removeItem('run-left');
  row.querySelector('.fn a')?.focus({ preventScroll: false });
};
addEventListener('popstate', () => { const wait = (n) => { if (document.querySelector('#rows')) back(); else if (n) setTimeout(wait, 100, n - 1); }; setTimeout(wait, 100, 20); });
addEventListener('pageshow', () => { if (performance.getEntriesByType('navigation')[0]?.type === 'back_forward') back(); });

// Histogram: dragging over bars narrows the range to them; the same as the fields do.
document.addEventListener('pointerdown', (e) => {
  const first = e.target.closest?.('[data-histo] a');
  if (!first || e.button) return;
  const under = (p) => document.elementFromPoint(p.clientX, p.clientY)?.closest?.('[data-histo] a');
  const up = (p) => {
    const end = under(p);
    if (!end || end === first) return;
    const [a, b] = [first, end].map((l) => new URL(l.getAttribute('href'), location.href).searchParams);
    const to = a.get('from') < b.get('from') ? b : a, url = new URL(first.getAttribute('href'), location.href);
    url.searchParams.set('from', a.get('from') < b.get('from') ? a.get('from') : b.get('from'));
    url.searchParams.set('to', to.get('to'));
    location.assign(url);
  };
  addEventListener('pointerup', up, { once: true });
});
document.addEventListener('dragstart', (e) => { if (e.target.closest?.('[data-histo]')) e.preventDefault(); });
