"""What the launcher's interpreter runs: `python -I -S launcher_main.py`, with the control socket as descriptor 3."""

import os
import sys

sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from builder.sandbox.server import main

if __name__ == "__main__":
    main(is_remapped="remapped" in sys.argv)
