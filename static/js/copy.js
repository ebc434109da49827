// Copy fields: a button with data-copy (the text), data-copy-from (the id of an element whose text it is) or data-copy-path
// (an address of ours without its beginning).
document.addEventListener('click', async (e) => {
  const button = e.target.closest('[data-copy], [data-copy-from], [data-copy-path]');
  if (!button) return;
  const path = button.dataset.copyPath;
  const text = path ? new URL(path, location.href).href : button.dataset.copy ?? document.getElementById(button.dataset.copyFrom)?.textContent ?? '';
  try {
    await navigator.clipboard.writeText(text);
    document.dispatchEvent(new CustomEvent('announce', { detail: 'Copied' }));
    button.dataset.copied = '';
    setTimeout(() => delete button.dataset.copied, 1500);
  } catch {
    document.dispatchEvent(new CustomEvent('announce', { detail: 'Copying is not allowed here. Select the text instead.' }));
  }
});
