// Enhancements only: every page works as plain links and forms without these files. The server joins them into one.
// Listeners are delegated to document, so content that htmx swaps in needs no set-up.
import "./announce.js";
import "./theme.js";
import "./navigation.js";
import "./menus.js";
import "./palette.js";
import "./secrets.js";
import "./copy.js";
import "./keys.js";
import "./timeline.js";
import "./clocks.js";
import "./live.js";
import "./actions.js";
import "./selection.js";
import "./cells.js";
import "./undo.js";
