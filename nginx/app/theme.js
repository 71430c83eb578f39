/*
 * theme.js - light or dark, before the first pixel: the one script that is no module, as those run after it.
 */
(() => {
  const dark = matchMedia('(prefers-color-scheme: dark)');
  const apply = () => {
    let chosen = null;
    try {
      chosen = localStorage.getItem('coze-chat:theme');
    } catch {
      // No storage: the system's choice.
    }
    if (chosen !== 'light' && chosen !== 'dark') chosen = dark.matches ? 'dark' : 'light';
    document.documentElement.dataset.theme = chosen;
    document.querySelector('meta[name=theme-color]').content = chosen === 'dark' ? '#141918' : '#f7f5f0';
  };
  apply();
  dark.addEventListener('change', apply);
  addEventListener('themechange', apply);
  addEventListener('storage', apply);
})();
