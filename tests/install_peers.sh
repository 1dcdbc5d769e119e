#!/usr/bin/env bash
# Installs the real peers of `make test-peers`: Orthanc, DCMTK, dicom3tools, Chromium, Node,
# PostgreSQL, qpdf, poppler, the npm packages of the FHIR server, of OHIF and of dcmjs, and dcmqi,
# wsidicom and fhirclient from the dependency group `peers` of pyproject.toml.
# Where it cannot install (no apt, not root, no network) it says what is missing and exits 0:
# the tests of a missing peer then skip with a reason.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Command that shows the package is there -> Debian package.
declare -A PACKAGES=(
  [Orthanc]=orthanc
  [storescu]=dcmtk
  [dciodvfy]=dicom3tools
  [chromium]=chromium
  [node]=nodejs
  [npm]=npm
  [psql]=postgresql
  [qpdf]=qpdf
  [pdftotext]=poppler-utils
)
ORTHANC_DICOMWEB=/usr/share/orthanc/plugins/libOrthancDicomWeb.so
FHIR_SERVER=tests/acceptance/fhir_server
DCMJS=tests/acceptance/dcmjs_reader
READERS=.venv/bin/segimage2itkimage
UV="$(command -v uv || echo .uv/bin/uv)"
# OHIF's prebuilt pages are all we need; `npm ci` would fetch sources that were never published.
OHIF=tests/acceptance/node_modules/@ohif/app
OHIF_PACKAGE=@ohif/app@3.12.10
AXE=tests/acceptance/node_modules/axe-core
AXE_PACKAGE=axe-core@4.14.1
AXE_INTEGRITY=sha512-FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ==
OHIF_INTEGRITY=sha512-0kuF66Mq9c9dMD++bUsTjMrJpXJwaZhz9B4uS244DawAjSkTwIYFU93pxPuRUQixaRi7QAHlF3Fe1qudBlZrmA==

SCRATCH="$(mktemp -d)"
POLICY_IS_OURS=no
tidy_up() {
  rm -rf "$SCRATCH"
  if [ "$POLICY_IS_OURS" = yes ]; then rm -f /usr/sbin/policy-rc.d; fi
}
trap tidy_up EXIT

missing_packages() {
  local command
  for command in "${!PACKAGES[@]}"; do
    # Debian keeps daemons in /usr/sbin, which is not on everybody's PATH.
    PATH="$PATH:/usr/sbin" command -v "$command" >/dev/null || echo "${PACKAGES[$command]}"
  done
  [ -e "$ORTHANC_DICOMWEB" ] || echo orthanc-dicomweb
}

# Without this Debian starts Orthanc and PostgreSQL as services as soon as they are unpacked.
keep_services_from_starting() {
  local policy=/usr/sbin/policy-rc.d
  [ -e "$policy" ] && return
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod 755 "$policy"
  POLICY_IS_OURS=yes
}

install_packages() {
  local packages
  mapfile -t packages < <(missing_packages | sort -u)
  [ "${#packages[@]}" -eq 0 ] && return
  if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "peers: needs root and apt to install: ${packages[*]}" >&2
    return
  fi
  keep_services_from_starting
  apt-get update -qq || echo "peers: apt-get update failed; trying with the lists at hand" >&2
  local package
  for package in "${packages[@]}"; do
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$package" \
      >/dev/null || echo "peers: apt could not install $package" >&2
  done
}

# dcmqi, wsidicom and fhirclient, as uv.lock has them, beside what is there.
install_readers() {
  [ -x "$READERS" ] && return
  if ! "$UV" sync --frozen --quiet --inexact --group peers; then
    echo "peers: uv could not install the dependency group peers" >&2
  fi
}

# The packages that the package-lock.json of a folder names.
install_locked() {
  [ -d "$1/node_modules" ] && return
  if ! npm ci --silent --ignore-scripts --prefix "$1"; then
    rm -rf "$1/node_modules"
    echo "peers: npm could not install the packages of $1" >&2
  fi
}

install_ohif() {
  [ -d "$OHIF/dist" ] && return
  local tarball
  if ! tarball="$(cd "$SCRATCH" && npm pack --silent "$OHIF_PACKAGE")"; then
    echo "peers: npm could not fetch $OHIF_PACKAGE" >&2
    return
  fi
  local found
  found="sha512-$(openssl dgst -sha512 -binary "$SCRATCH/$tarball" | base64 -w0)"
  if [ "$found" != "$OHIF_INTEGRITY" ]; then
    echo "peers: $OHIF_PACKAGE is not the file that was looked at: $found" >&2
    return
  fi
  tar -xzf "$SCRATCH/$tarball" -C "$SCRATCH"
  mkdir -p "$(dirname "$OHIF")"
  mv "$SCRATCH/package" "$OHIF"
}

# axe-core judges the console's pages (WCAG 2.2); one file of its package is all we need.
install_axe() {
  [ -f "$AXE/axe.min.js" ] && return
  local tarball
  if ! tarball="$(cd "$SCRATCH" && npm pack --silent "$AXE_PACKAGE")"; then
    echo "peers: npm could not fetch $AXE_PACKAGE" >&2
    return
  fi
  local found
  found="sha512-$(openssl dgst -sha512 -binary "$SCRATCH/$tarball" | base64 -w0)"
  if [ "$found" != "$AXE_INTEGRITY" ]; then
    echo "peers: $AXE_PACKAGE is not the file that was looked at: $found" >&2
    return
  fi
  mkdir -p "$AXE"
  tar -xzf "$SCRATCH/$tarball" -C "$AXE" --strip-components=1 package/axe.min.js
}

install_npm_packages() {
  if ! command -v npm >/dev/null; then
    echo "peers: npm is missing, so the FHIR server, dcmjs, OHIF and axe-core cannot be installed" >&2
    return
  fi
  install_locked "$FHIR_SERVER"
  install_locked "$DCMJS"
  install_ohif
  install_axe
}

report() {
  local left
  left="$(missing_packages | sort -u | tr '\n' ' ')"
  [ -x "$READERS" ] || left+="dcmqi, wsidicom and fhirclient "
  [ -d "$FHIR_SERVER/node_modules" ] || left+="$FHIR_SERVER/node_modules "
  [ -d "$DCMJS/node_modules" ] || left+="$DCMJS/node_modules "
  [ -d "$OHIF/dist" ] || left+="$OHIF/dist "
  [ -f "$AXE/axe.min.js" ] || left+="$AXE "
  if [ -z "$left" ]; then
    echo "peers: all are here"
  else
    echo "peers: still missing, their tests will skip: $left"
  fi
}

install_packages
install_readers
install_npm_packages
report
