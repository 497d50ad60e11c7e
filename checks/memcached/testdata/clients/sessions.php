<?php
// Opens a session of php-memcached, counts in it, and prints the count.
session_id('abcdef0123456789');
if (!session_start()) {
    exit(1);
}
$_SESSION['n'] = ($_SESSION['n'] ?? 0) + 1;
echo $_SESSION['n'];
