"""The sentence with which the settings refuse each environment."""

import json
import os
import sys

from shop.settings import Settings

for variables in json.loads(sys.argv[1]):
    os.environ.update(variables)
    try:
        Settings.load()
    except SystemExit as stop:
        print(stop)
    for name in variables:
        del os.environ[name]
