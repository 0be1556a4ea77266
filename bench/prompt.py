"""From the signed-in home page to a prompt that answers: one click, how long?

Run: .venv/bin/python -m bench.prompt [--rounds 20]
A real Chromium, the whole product; prints median and 95th percentile in seconds.
"""

import argparse
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from bench.product import Product, running_product

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


def one(page: Page, product: Product) -> tuple[float, float]:
    """Seconds to the prompt, and to the answer of a first command."""
    page.goto(product.url)
    button = page.get_by_role("button", name="Just a terminal")
    button.wait_for()
    begun = time.perf_counter()
    button.click()
    rows = page.locator(".xterm-rows")
    rows.filter(has_text="$").first.wait_for()
    prompt = time.perf_counter() - begun
    page.keyboard.type("echo $((6*7))-ok\n")
    rows.filter(has_text="42-ok").first.wait_for()
    return prompt, time.perf_counter() - begun


def measure(product: Product, rounds: int) -> tuple[list[float], list[float]]:
    """Each sandbox is ended after its round: quotas are not what is measured."""
    found = []
    browser = shutil.which(os.environ.get("KODE_CHROMIUM", "chromium"))
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=FLAGS)
        page = chromium.new_page()
        page.goto(product.link)
        page.wait_for_url(f"{product.url}/")
        for _ in range(rounds):
            found.append(one(page, product))
            page.goto("about:blank")
            product.end_sandboxes()
        chromium.close()
    return [f[0] for f in found], [f[1] for f in found]


def main() -> None:
    """Start the product, measure, print, end it."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=20)
    rounds = options.parse_args().rounds
    with tempfile.TemporaryDirectory() as data, running_product(Path(data)) as product:
        columns = measure(product, rounds)
    for name, values in zip(("prompt", "first answer"), columns, strict=True):
        high = sorted(values)[int(len(values) * 0.95)]
        print(f"{name:14} median {statistics.median(values):.2f} s, p95 {high:.2f} s")


if __name__ == "__main__":
    main()
