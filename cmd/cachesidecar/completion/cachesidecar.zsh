#compdef cachesidecar
# Completes the command line of cachesidecar in zsh. Load it after compinit with:
#     source <(cachesidecar completion zsh)
# or write it to a file _cachesidecar in a folder of $fpath.
_cachesidecar() {
    local cur=${words[CURRENT]} program=${words[1]/#\~/$HOME}
    local -a before=("${(@)words[2,CURRENT-1]}") found
    [[ $cur == -* ]] && before+=("${cur/#--/-}")
    # cli adds what a command does if $0 is zsh.
    found=("${(@f)$(env 0=zsh _CACHESIDECAR_COMPLETES=1 "$program" "${before[@]}" --generate-bash-completion 2>/dev/null)}")
    if [[ -n ${found[1]} ]]; then _describe cachesidecar found; else _files; fi
}
if [[ ${funcstack[1]-} == _cachesidecar ]]; then
    _cachesidecar "$@" # the file is a function of $fpath
else
    compdef _cachesidecar cachesidecar
fi
