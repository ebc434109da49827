// Search or jump: Ctrl or ⌘ K opens it anywhere; arrows walk what was found, Enter opens the first.
const palette = () => document.getElementById('palette');
const open = () => { const dialog = palette(); if (dialog && !dialog.open) { dialog.showModal(); dialog.querySelector('[name=q]').select(); } };
document.addEventListener('keydown', (e) => {
  if (e.key.toLowerCase() === 'k' && (e.ctrlKey || e.metaKey) && !e.altKey && !e.shiftKey && palette()) { e.preventDefault(); open(); return; }
  const dialog = e.target.closest?.('#palette'), step = { ArrowDown: 1, ArrowUp: -1 }[e.key];
  if (!dialog || !step) return;
  e.preventDefault();
  const all = [dialog.querySelector('[name=q]'), ...dialog.querySelectorAll('#found a')];
  all[(all.indexOf(document.activeElement) + step + all.length) % all.length].focus();
});
// Leaving for another page closes it: the body is swapped, the dialog would stay.
document.addEventListener('htmx:after:swap', (e) => { if (e.detail?.ctx?.target === document.body && palette()?.open) palette().close(); });
