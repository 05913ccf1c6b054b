"""What the benches in Python share: where they are, how they build what they run, and how a result is named and headed, so that
machine and commit stand in the name and the load of the machine inside."""
import csv
import datetime
import os
import re
import subprocess
import sys

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def run(*args, **more):
    subprocess.run(args, check=True, stdout=subprocess.DEVNULL, **more)


def commit():
    git = lambda *args: subprocess.run(["git", "-C", HERE, *args], capture_output=True, text=True).stdout.strip()
    return git("rev-parse", "--short", "HEAD") + ("-changed" if git("status", "--porcelain", "--untracked-files=no") else "")


def cpu():
    with open("/proc/cpuinfo") as f:
        names = [line.split(":", 1)[1].strip() for line in f if line.startswith("model name")]
    return re.sub("[^A-Za-z0-9]+", "-", names[0]).strip("-") if names else "unknown"


def built(*targets):
    """The folder of the programs, built from this very source."""
    run("cmake", "-G", "Ninja", "-S", HERE, "-B", f"{HERE}/build")
    run("cmake", "--build", f"{HERE}/build", "-j", str(os.cpu_count()), "--target", *targets)
    return f"{HERE}/build/bin"


def put(kind, rows, load, path=None):
    """Rows of one set of keys as CSV: to the screen, and to `path`, else bench/results/<kind>-<CPU>-<commit>.csv."""
    head = f"# commit: {commit()}, {datetime.date.today()}, load before the run: {load:.2f} of {os.cpu_count()} CPUs\n# machine: {cpu()}\n"
    path = path or f"{HERE}/bench/results/{kind}-{cpu()}-{commit()}.csv"
    with open(path, "w", newline="", encoding="utf-8") as f:
        f.write(head)
        for to in (sys.stdout, f):
            w = csv.DictWriter(to, rows[0], lineterminator="\n")
            w.writeheader()
            w.writerows(rows)
    print(path, file=sys.stderr)
