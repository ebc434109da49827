// Copy fields: a button with data-copy (the text) or data-copy-from (the id of an element whose text it is).
document.addEventListener('click', async (e) => {
  const button = e.target.closest('[data-copy], [data-copy-from]');
  if (!button) return;
  const text = button.dataset.copy ?? document.getElementById(button.dataset.copyFrom)?.textContent ?? '';
  try {
    await navigator.clipboard.writeText(text);
    document.dispatchEvent(new CustomEvent('announce', { detail: 'Copied' }));
    button.dataset.copied = '';
    setTimeout(() => delete button.dataset.copied, 1500);
  } catch {
    document.dispatchEvent(new CustomEvent('announce', { detail: 'Copying is not allowed here. Select the text instead.' }));
  }
});
