// The context menu of a cell whose value can be filtered by: only this, or not this. With Shift comes the browser's own.
document.addEventListener('contextmenu', (e) => {
  const row = e.target.closest?.('#rows tr'), menu = document.getElementById('cell-menu');
  if (!row || !menu || e.shiftKey) return;
  // The link of a row lies over all its cells; from the keyboard there is no point, and the link's own cell is meant.
  const under = e.clientX || e.clientY ? document.elementsFromPoint(e.clientX, e.clientY).filter((el) => !el.matches('.fn a')) : [e.target];
  const cell = under.map((el) => el.closest('#rows [data-only]')).find(Boolean);
  if (!cell) return;
  e.preventDefault();
  const [name, ...rest] = cell.dataset.only.split('='), value = rest.join('=');
  menu.querySelector('[data-cell-words]').textContent = `${{ fn: 'Function', app: 'App', status: 'Status' }[name]}: ${value}`;
  for (const link of menu.querySelectorAll('[data-cell]')) {
    const url = new URL(location.href), all = url.searchParams;
    for (const key of ['before', 'after']) all.delete(key);
    if (!link.dataset.cell || name === 'status') all.delete(name);
    all.append(name, link.dataset.cell + value);
    link.href = url.pathname + url.search;
  }
  const box = cell.getBoundingClientRect();
  menu.showPopover();
  menu.style.left = `${Math.min(e.clientX || box.left, innerWidth - menu.offsetWidth - 8)}px`;
  menu.style.top = `${Math.min(e.clientY || box.bottom, innerHeight - menu.offsetHeight - 8)}px`;
  menu.querySelector('a').focus();
});
