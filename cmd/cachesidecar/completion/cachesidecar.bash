# Completes the command line of cachesidecar in bash (3.2 or later). Load it with:
#     source <(cachesidecar completion bash)
_cachesidecar() {
    local cur=${COMP_WORDS[COMP_CWORD]} program=${COMP_WORDS[0]/#\~/$HOME} IFS=$'\n'
    local -a words=("${COMP_WORDS[@]:1:COMP_CWORD-1}")
    if [[ $cur == -* ]]; then words+=("${cur/#--/-}"); fi
    COMPREPLY=($(compgen -W "$(_CACHESIDECAR_COMPLETES=1 "$program" "${words[@]}" --generate-bash-completion 2>/dev/null)" -- "$cur"))
}
complete -o default -F _cachesidecar cachesidecar
