// Dialogs: a link with data-dialog="id" opens that dialog instead of its page. Esc closes; focus goes back to the link.
document.addEventListener('click', (e) => {
  const opener = e.target.closest('[data-dialog]');
  if (opener && !e.metaKey && !e.ctrlKey && !e.shiftKey) {
    const dialog = document.getElementById(opener.dataset.dialog);
    if (!dialog) return;
    e.preventDefault();
    dialog.showModal();
    return;
  }
  const closer = e.target.closest('[data-dialog-close]');
  if (closer?.closest('dialog[open]')) {
    e.preventDefault();
    e.stopImmediatePropagation();
    closer.closest('dialog').close();
  }
}, true);
// A click beside an open dialog closes it.
document.addEventListener('click', (e) => { if (e.target.matches?.('dialog[open]')) e.target.close(); });
