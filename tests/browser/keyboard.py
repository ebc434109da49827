"""A person without a pointer: Tab, Shift, arrows, Enter, Space and letters; nothing else reaches the page."""

from dataclasses import dataclass

from playwright.async_api import Locator, Page, expect

#: Presses of Tab before something counts as out of reach.
REACH = 120
PATIENCE_MS = 30_000


@dataclass(frozen=True, slots=True)
class Keyboard:
    """The keys of one page."""

    page: Page

    async def reach(self, target: Locator) -> None:
        """Press Tab until the target has the focus. Raises AssertionError when Tab never comes there."""
        await expect(target).to_be_visible(timeout=PATIENCE_MS)
        for _ in range(REACH):
            if await target.evaluate("(element) => element === document.activeElement"):
                seen = await target.evaluate(
                    "(e) => e.matches(':focus-visible') && (getComputedStyle(e).outlineStyle !== 'none'"
                    " || getComputedStyle(e.closest('.field, .pick') ?? e).outlineStyle !== 'none')"
                )
                assert seen, f"{target} has the focus, but nothing shows it"
                return
            await self.page.keyboard.press("Tab")
        raise AssertionError(f"Tab does not reach {target}")

    async def follow(self, target: Locator) -> None:
        """Reach a link or a button, and press Enter."""
        await self.reach(target)
        await self.page.keyboard.press("Enter")

    async def fill(self, target: Locator, text: str) -> None:
        """Reach a field and type, over what stands there."""
        await self.reach(target)
        await self.page.keyboard.press("Control+a")
        await self.page.keyboard.type(text)
