#!/usr/bin/env bash
# Build the release into dist/, prove that the wheel works in an empty environment, write the SBOM.
set -euo pipefail
cd "$(dirname "$0")/.."

uv=$(command -v uv || echo .uv/bin/uv)
python=.venv/bin/python
rm -rf dist
"$uv" build --quiet --out-dir dist

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$uv" export --frozen --no-dev --no-emit-project --quiet --output-file "$work/requirements.txt"
"$uv" venv --quiet --python "$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')" "$work/env"
"$uv" pip install --quiet --python "$work/env/bin/python" --requirement "$work/requirements.txt"
"$uv" pip install --quiet --python "$work/env/bin/python" --no-deps dist/*.whl
"$uv" pip check --quiet --python "$work/env/bin/python"

.venv/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible \
  --output-format JSON --output-file dist/smearlink.cdx.json "$work/env/bin/python"

(cd "$work" && env/bin/smearlink demo --out demo-output)
test -n "$(ls "$work/demo-output/pacs")"
echo "dist/:" && ls -l dist
