// After a boosted visit the reader is at the start of the new page: focus goes to <main>, the title is announced.
document.addEventListener('htmx:after:swap', (e) => {
  const ctx = e.detail?.ctx;
  if (!ctx || ctx.target !== document.body) return;
  const side = document.getElementById('side');
  if (side?.matches(':popover-open')) side.hidePopover();
  document.getElementById('main')?.focus({ preventScroll: true });
  // htmx sets the title after the swap.
  setTimeout(() => document.dispatchEvent(new CustomEvent('announce', { detail: document.title })), 50);
});

// A step opens in the panel beside the timeline; the row says so before the answer is here.
document.addEventListener('click', (e) => {
  const row = e.target.closest('.tl .nm');
  if (!row || e.metaKey || e.ctrlKey || e.shiftKey) return;
  for (const other of document.querySelectorAll('.tl .nm[aria-current]')) other.removeAttribute('aria-current');
  row.setAttribute('aria-current', 'true');
});

// A deeper part of a payload opens in the panel; the link is the same page without scripts.
document.addEventListener('click', (e) => {
  const deeper = e.target.closest('[data-deeper]');
  if (!deeper || e.metaKey || e.ctrlKey || e.shiftKey) return;
  e.preventDefault();
  const url = deeper.getAttribute('href');
  htmx.ajax('GET', url, { source: document.getElementById('detail'), target: '#detail', swap: 'outerMorph', push: url });
});
