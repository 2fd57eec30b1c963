"""`sknet serve` with its gRPC port, asked by Triton's client; a call under SIGTERM, two workers, ports that are taken."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from skimage.data import chelsea
from tritonclient.utils import InferenceServerException

from model.preprocess import preprocess
from tests.app.calling import free_port
from tests.e2e.bad_inputs import jpeg
from tests.e2e.server import Server, command, environment, serve
from tests.repo.readme import README

pytestmark = pytest.mark.e2e
