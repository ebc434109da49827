// A bulk action that has not begun can be undone from any page: a toast counts down and carries the button.
const KEY = 'undo', read = () => JSON.parse(sessionStorage.getItem(KEY) ?? 'null');
const token = () => JSON.parse(document.body.getAttribute('hx-headers:inherited') ?? '{}')['X-CSRF-Token'] ?? '';
const show = () => {
  const here = document.querySelector('[data-undo]'), toasts = document.getElementById('toasts');
  if (here) sessionStorage.setItem(KEY, JSON.stringify({ to: here.getAttribute('action'), until: Number(here.dataset.undo), words: here.dataset.words }));
  document.getElementById('undo-toast')?.remove();
  const asked = read();
  if (!asked || !toasts) return;
  const left = asked.until - Date.now();
  if (left <= 0 || location.pathname === asked.to.replace(/\/undo$/, '')) { if (left <= 0) sessionStorage.removeItem(KEY); return; }
  const toast = document.createElement('form');
  Object.assign(toast, { id: 'undo-toast', className: 'toast card', method: 'post', action: asked.to });
  toast.setAttribute('hx-boost', 'false');
  const words = document.createElement('span'), field = document.createElement('input'), button = document.createElement('button');
  words.textContent = `${asked.words}: nothing has started yet.`;
  Object.assign(field, { type: 'hidden', name: 'csrf_token', value: token() });
  Object.assign(button, { type: 'submit', className: 'btn sm', textContent: 'Undo' });
  toast.append(words, field, button);
  toasts.append(toast);
  setTimeout(() => toast.remove(), left);
};
document.addEventListener('submit', (e) => { if (e.target.matches?.('[data-undo], #undo-toast')) sessionStorage.removeItem(KEY); });
document.addEventListener('htmx:after:swap', (e) => { if (e.detail?.ctx?.target === document.body) show(); });
show();
