// Theme. The server writes data-theme from a cookie, so nothing flashes; this switches it and remembers.
const choose = (theme) => {
  const root = document.documentElement, secure = location.protocol === 'https:' ? ';secure' : '';
  if (theme) root.dataset.theme = theme; else delete root.dataset.theme;
  document.cookie = `theme=${theme};path=/;max-age=${theme ? 31536000 : 0};samesite=lax${secure}`;
  show();
};
const show = () => {
  for (const b of document.querySelectorAll('[data-theme-set]')) b.setAttribute('aria-pressed', String(b.dataset.themeSet === (document.documentElement.dataset.theme ?? '')));
};
document.addEventListener('click', (e) => {
  const set = e.target.closest('[data-theme-set]');
  if (set) { choose(set.dataset.themeSet); return; }
  if (!e.target.closest('[data-theme-toggle]')) return;
  const theme = document.documentElement.dataset.theme;
  const dark = theme ? theme === 'dark' : matchMedia('(prefers-color-scheme: dark)').matches;
  choose(dark ? 'light' : 'dark');
});
show();
document.addEventListener('htmx:after:swap', show);
