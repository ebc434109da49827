"""The sample shop in a hurry: the same workflow, bank and ledger, with shorter waits.

Started by the chaos tests as a process, like the shop: `python -m tests.chaos.quick_shop --port 3030`. Its settings are
the shop's, and `SHOP_RETRY_AFTER_S` and `SHOP_GRACE_S`.
"""

import argparse
import os
from datetime import timedelta

import uvicorn

from examples.shop import bank, web, workflow

if __name__ == "__main__":
    bank.RETRY_AFTER_S = int(os.environ.get("SHOP_RETRY_AFTER_S", "1"))
    workflow.GRACE = timedelta(seconds=float(os.environ.get("SHOP_GRACE_S", "0.5")))
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    uvicorn.run(web.app, host="127.0.0.1", port=parser.parse_args().port, log_level="warning")
