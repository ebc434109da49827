// One polite live region for the whole page. Anyone: document.dispatchEvent(new CustomEvent('announce', {detail: text})).
let last = 0;
document.addEventListener('announce', (e) => {
  const region = document.getElementById('announce');
  if (!region || (e.detail === region.textContent && performance.now() - last < 5000)) return;
  last = performance.now();
  region.textContent = e.detail;
});
