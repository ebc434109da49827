"""Takes the pictures of the README from a running `make demo`: python docs/screenshots.py ADDRESS EMAIL PASSWORD RUN_URL.

Run it with the project's interpreter; Chromium is found as the browser tests find it.
"""

import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

from tests.browser.chromium import find

FOLDER = Path(__file__).parent / "images"
SIZE = {"width": 1440, "height": 900}


def main() -> None:
    """Sign in and look at the list and the run, in both themes."""
    address, email, password, run = sys.argv[1:5]
    FOLDER.mkdir(exist_ok=True)
    chromium = find()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(chromium.path), args=list(chromium.arguments))
        for theme in ("light", "dark"):
            page = browser.new_context(viewport=SIZE, color_scheme=theme).new_page()
            page.goto(f"{address}/login")
            page.fill("[name=email]", email)
            page.fill("[name=password]", password)
            page.click("button[type=submit]")
            page.wait_for_url("**/env/**")
            page.screenshot(path=FOLDER / f"runs-{theme}.png")
            page.goto(run)
            page.screenshot(path=FOLDER / f"run-{theme}.png")
        browser.close()


if __name__ == "__main__":
    main()
