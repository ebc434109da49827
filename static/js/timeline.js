// Timeline: folding of groups, and zoom by two custom properties, set through CSSOM, that move every row at once.
document.addEventListener('click', (e) => {
  const twisty = e.target.closest('.tl .tw');
  if (twisty) {
    const open = twisty.getAttribute('aria-expanded') === 'true';
    twisty.setAttribute('aria-expanded', String(!open));
    twisty.closest('li').toggleAttribute('data-folded', open);
  }
  const button = e.target.closest('[data-zoom]');
  if (!button) return;
  const tl = button.closest('[data-tl]'), [a, b] = window_(tl), m = (a + b) / 2, h = (b - a) / 2;
  if (button.dataset.zoom === 'fit') show(tl, 0, 1);
  else if (button.dataset.zoom === 'in') show(tl, m - h / 2, m + h / 2);
  else show(tl, m - h * 2, m + h * 2);
});

const window_ = (tl) => {
  const z = Number(tl.style.getPropertyValue('--z')) || 1, o = Number(tl.style.getPropertyValue('--o')) || 0;
  return [o, o + 1 / z];
};
const show = (tl, x, y) => {
  let a = Math.max(0, Math.min(x, y)), b = Math.min(1, Math.max(x, y));
  if (b - a < 0.004) { a = 0; b = 1; }
  tl.style.setProperty('--z', 1 / (b - a));
  tl.style.setProperty('--o', a);
  mark(tl, a, b);
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
  mini.addEventListener('pointerup', (p) => { mini.removeEventListener('pointermove', move); show(tl, start, at(p)); }, { once: true });
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
  for (const tl of document.querySelectorAll('[data-tl]')) if (tl.style.getPropertyValue('--z')) mark(tl, ...window_(tl));
});
