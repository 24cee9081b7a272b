# Sourced by the other tools, in the project's folder. With ccache a clone compiles only what no other clone
# has compiled on this machine.
if command -v ccache >/dev/null; then
  export CMAKE_C_COMPILER_LAUNCHER=ccache CMAKE_CXX_COMPILER_LAUNCHER=ccache
  export CCACHE_DIR=${XDG_CACHE_HOME:-$HOME/.cache}/shmgemm/ccache CCACHE_MAXSIZE=2G
  export CCACHE_BASEDIR=$PWD CCACHE_NOHASHDIR=1
fi
