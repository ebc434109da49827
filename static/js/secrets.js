// Keys: copied without being shown, and hidden again a minute after they were.
document.documentElement.dataset.scripts = '';
const token = () => JSON.parse(document.body.getAttribute('hx-headers:inherited') ?? '{}')['X-CSRF-Token'] ?? '';
const say = (words) => document.dispatchEvent(new CustomEvent('announce', { detail: words }));

document.addEventListener('click', async (e) => {
  const button = e.target.closest('[data-copy-secret]');
  if (!button) return;
  e.preventDefault();
  const secret = fetch(button.dataset.copySecret, {
    method: 'POST', headers: { Accept: 'text/plain', 'X-CSRF-Token': token() },
  }).then((answer) => { if (!answer.ok) throw new Error(String(answer.status)); return answer.blob(); });
  try {
    // The promise is handed over inside the click: some browsers allow copying only then.
    await navigator.clipboard.write([new ClipboardItem({ 'text/plain': secret })]);
    say('Copied');
    button.dataset.copied = '';
    setTimeout(() => delete button.dataset.copied, 1500);
  } catch {
    say('Copying did not work. Show the key and select it instead.');
  }
});

const timers = new WeakMap();
const watch = () => {
  for (const el of document.querySelectorAll('[data-hide-after]')) {
    if (timers.has(el)) continue;
    timers.set(el, setTimeout(() => el.isConnected && el.dispatchEvent(new Event('hide')), el.dataset.hideAfter * 1000));
  }
};
watch();
document.addEventListener('htmx:after:swap', watch);
