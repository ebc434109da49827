// Timeline: folding of groups, and zoom by two custom properties, set through CSSOM, that move every row at once.
document.addEventListener('click', (e) => {
  const twisty = e.target.closest('.tl .tw');
  if (twisty) {
    const open = twisty.getAttribute('aria-expanded') === 'true';
    twisty.setAttribute('aria-expanded', String(!open));
    twisty.closest('li').toggleAttribute('data-folded', open);
  }
  const button = e.target.closest('[data-zoom]');
  if (!button || e.metaKey || e.ctrlKey || e.shiftKey) return;
  e.preventDefault();
  const tl = button.closest('[data-tl]'), [a, b] = window_(tl), m = (a + b) / 2, h = (b - a) / 2;
  const isWhole = a === 0 && b === 1;
  if (tl.dataset.part && (button.dataset.zoom === 'fit' || (button.dataset.zoom === 'out' && isWhole))) ask(tl, button.getAttribute('href'));
  else if (button.dataset.zoom === 'fit') show(tl, 0, 1);
  else if (button.dataset.zoom === 'in') show(tl, m - h / 2, m + h / 2);
  else show(tl, m - h * 2, m + h * 2);
});

const window_ = (tl) => {
  const z = Number(tl.style.getPropertyValue('--z')) || 1, o = Number(tl.style.getPropertyValue('--o')) || 0;
  return [o, o + 1 / z];
};
const show = (tl, x, y) => {
  let a = Math.max(0, Math.min(x, y)), b = Math.min(1, Math.max(x, y));
  if (b - a < 0.004) { a = Math.max(0, (a + b) / 2 - 0.002); b = a + 0.004; }
  // Beyond 20 times the server makes a finer axis of what is seen.
  if (b - a < 0.05) { const [from, to] = [at(tl, a), at(tl, b)]; if (to - from >= 1) { ask(tl, `${tl.dataset.here}&from=${Math.floor(from)}&to=${Math.ceil(to)}`); return; } }
  tl.style.setProperty('--z', 1 / (b - a));
  tl.style.setProperty('--o', a);
  mark(tl, a, b);
};
// The instant at a place of the axis: between two bends it is even.
const at = (tl, share) => {
  const bends = tl.dataset.bends.trim().split(' ').map((b) => b.split(':').map(Number));
  const n = Math.max(1, bends.findIndex(([x]) => x >= share * 100)), [x, ms] = bends[n - 1], [x2, ms2] = bends[n];
  return x2 > x ? ms + (ms2 - ms) * (share * 100 - x) / (x2 - x) : ms;
};
const ask = (tl, url) => {
  if (tl.dataset.asked === url) return;
  tl.dataset.asked = url;
  htmx.ajax('GET', url, { source: tl, target: '#timeline', swap: 'outerMorph', push: url });
};
const mark = (tl, a, b) => {
  const sel = tl.querySelector('[data-sel]');
  sel.setAttribute('x', `${a * 100}%`);
  sel.setAttribute('width', `${(b - a) * 100}%`);
  sel.setAttribute('visibility', a === 0 && b === 1 ? 'hidden' : 'visible');
};

document.addEventListener('pointerdown', (e) => {
  const mini = e.target.closest?.('[data-mini]');
  if (!mini) return;
  const tl = mini.closest('[data-tl]');
  const at = (p) => { const r = mini.getBoundingClientRect(); return Math.max(0, Math.min(1, (p.clientX - r.left) / r.width)); };
  const start = at(e);
  mini.setPointerCapture(e.pointerId);
  const move = (p) => mark(tl, Math.min(start, at(p)), Math.max(start, at(p)));
  mini.addEventListener('pointermove', move);
  mini.addEventListener('pointerup', (p) => { mini.removeEventListener('pointermove', move); if (Math.abs(at(p) - start) < 0.004) show(tl, 0, 1); else show(tl, start, at(p)); }, { once: true });
});

document.addEventListener('wheel', (e) => {
  const track = e.ctrlKey && e.target.closest?.('.tl .clip');
  if (!track) return;
  e.preventDefault();
  const tl = track.closest('[data-tl]'), [a, b] = window_(tl), r = track.getBoundingClientRect();
  const p = a + (b - a) * (e.clientX - r.left) / r.width, k = e.deltaY > 0 ? 1.25 : 0.8;
  show(tl, p - (p - a) * k, p + (b - p) * k);
}, { passive: false });

// A morph brings the server's idea of the strip back; the zoom itself lives on the container and survives.
document.addEventListener('htmx:after:swap', () => {
  for (const tl of document.querySelectorAll('[data-tl]')) {
    if (!tl.style.getPropertyValue('--z')) continue;
    // A finer axis fills the track: what was zoomed before is no longer.
    if (parts.get(tl) !== tl.dataset.part) { tl.style.setProperty('--z', 1); tl.style.setProperty('--o', 0); }
    parts.set(tl, tl.dataset.part);
    mark(tl, ...window_(tl));
  }
  watch();
});
const parts = new WeakMap();

// Windows of a large run: filled when they come near the screen, emptied again when they are far from it.
const windows = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting, boundingClientRect } of entries) {
    const isEmpty = target.firstElementChild?.matches('[data-empty]');
    if (!isEmpty) delete target.dataset.filling;
    else if (isIntersecting && !target.dataset.filling) { target.dataset.filling = ''; target.dispatchEvent(new Event('fill')); }
    if (isIntersecting || isEmpty || !boundingClientRect.height || target.contains(document.activeElement)) continue;
    const empty = kept.get(target);
    if (!empty) continue;
    empty.querySelector('svg').setAttribute('height', Math.round(boundingClientRect.height));
    target.replaceChildren(empty.cloneNode(true));
  }
}, { rootMargin: '3000px 0px' });
const kept = new WeakMap();
const watch = () => {
  for (const list of document.querySelectorAll('[data-window]')) {
    if (!kept.has(list)) kept.set(list, list.querySelector('[data-empty]')?.cloneNode(true));
    // Observing anew tells where it stands now: a morph may have emptied it in view.
    if (list.firstElementChild?.matches('[data-empty]')) windows.unobserve(list);
    else delete list.dataset.filling;
    windows.observe(list);
  }
};
watch();
