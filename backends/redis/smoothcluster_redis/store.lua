-- Every read and every change of the store, each one step that nothing else can come between.
-- ARGV: prefix of all keys, what to do, and what that needs. KEYS[1] only says which slot it is in.
-- Nothing is written before it is certain that all of it will be.

local CAP, STEP = $CAP, 100
local prefix, act = ARGV[1], ARGV[2]
local META, VALUES, MARKS = prefix .. 'meta', prefix .. 'values', prefix .. 'marks'
local LEASES, TTLS = prefix .. 'leases', prefix .. 'ttls'
local call = redis.call

local time = call('TIME')
local stamp = time[1] * 1000 + math.floor(time[2] / 1000)
local known = call('HMGET', META, 'clock', 'stamp', 'number', 'store', 'since')
local clock = tonumber(known[1] or 0)
local number = tonumber(known[3] or 0)  -- Of the last commit. Below 2^53, where Lua's numbers are exact.
local since = known[5]  -- The number from which on this history is certain. In every version: none of before holds.

local function whole(n)
    return string.format('%.0f', n)
end

-- The lease clock: it follows the server's, never back, and by no more than CAP between two commands.
local passed = stamp - (tonumber(known[2]) or stamp)
if passed >= 0 and passed < STEP then
    clock = clock + passed  -- Not worth writing down.
elseif known[4] then
    clock = clock + math.max(0, math.min(passed, CAP))
    call('HSET', META, 'clock', whole(clock), 'stamp', whole(stamp))
end

-- What was changed, by the first segment of the keys; every such group has a stream.
local news = {}

local function note(sign, key)
    local group = string.match(key, '^[^/]+')
    news[group] = news[group] or {}
    table.insert(news[group], sign .. key)
end

local function publish()
    local news_of = {'number', whole(number)}
    for group, list in pairs(news) do
        local stream, last = prefix .. 'stream:' .. group, 'last:' .. group
        local before = call('HGET', META, last) or '0'
        call('XADD', stream, 'MAXLEN', '~', 1000, whole(number) .. '-0',
             'after', before, 'changed', table.concat(list, ' '))
        -- Now and then is enough: who finds entries missing wakes everybody.
        if before == '0' or number % 50 == 0 then call('PEXPIRE', stream, 3600000) end
        table.insert(news_of, last)
        table.insert(news_of, whole(number))
    end
    call('HSET', META, unpack(news_of))
    news = {}
end

-- Lua's stack, and so a command, holds 8000 words at most.
local function in_slices(command, key, words)
    for first = 1, #words, 4000 do
        call(command, key, unpack(words, first, math.min(first + 3999, #words)))
    end
end

-- Keys and the directories they imply.

local function split(name)
    return string.match(name, '^(.*)/([^/]*)$')
end

local function is_directory(name)
    return call('EXISTS', prefix .. 'children:' .. name) == 1
end

local function link(directory, leaves)
    local there = is_directory(directory)
    in_slices('SADD', prefix .. 'children:' .. directory, leaves)
    local above, leaf = split(directory)
    if above and not there then link(above, {leaf}) end
end

local function unlink(name)
    local directory, leaf = split(name)
    while directory do
        call('SREM', prefix .. 'children:' .. directory, leaf)
        if is_directory(directory) then return end
        directory, leaf = split(directory)
    end
end

local function remove(key)
    call('HDEL', MARKS, key)
    call('HDEL', VALUES, key)
    unlink(key)
    note('+', key)
end

-- Leases.

local function finish(lease)
    local keys = call('SMEMBERS', prefix .. 'lease:' .. lease)
    number = number + 1
    for _, key in ipairs(keys) do remove(key) end
    call('DEL', prefix .. 'lease:' .. lease)
    call('ZREM', LEASES, lease)
    call('HDEL', TTLS, lease)
    publish()
end

local function lives(lease)
    return call('ZSCORE', LEASES, lease)
end

-- A store that another server process has taken over may lack what was acknowledged last: renewals
-- too, so every lease gets its full time again; and no number may ever be given twice.
local function identify(jump)
    local info = call('INFO', 'server') .. call('INFO', 'replication')
    local run, replication = string.match(info, 'run_id:(%w+)'), string.match(info, 'master_replid:(%w+)')
    local store = run .. replication
    if store ~= known[4] then
        number = math.max(number + jump, stamp * 1000)
        since = whole(number)
        local history = 'server process ' .. run .. ', replication ' .. replication .. ', commits from ' .. since
        local former, offset = string.match(info, 'master_replid2:(%w+)'), string.match(info, 'second_repl_offset:(%d+)')
        if offset then history = history .. ', after ' .. former .. ' up to offset ' .. offset end
        call('HSET', META, 'store', store, 'since', since, 'history', history,
             'number', since, 'clock', whole(clock), 'stamp', whole(stamp))
        local ttls = call('HGETALL', TTLS)
        for i = 1, #ttls, 2 do
            call('ZADD', LEASES, 'XX', 'GT', whole(clock + ttls[i + 1]), ttls[i])
        end
    end
    return store .. ':' .. since
end

local function permitted()
    local key = prefix .. 'x'
    local needed = {
        {'DEL', key}, {'EXISTS', key}, {'HDEL', key, 'x'}, {'HEXISTS', key, 'x'}, {'HGET', key, 'x'}, {'HGETALL', key},
        {'HMGET', key, 'x'}, {'HSET', key, 'x', 'x'}, {'PEXPIRE', key, 1}, {'SADD', key, 'x'}, {'SMEMBERS', key},
        {'SREM', key, 'x'}, {'XADD', key, '*', 'x', 'x'}, {'XREAD', 'STREAMS', key, '0'}, {'ZADD', key, 1, 'x'},
        {'ZRANGEBYSCORE', key, 0, 1}, {'ZREM', key, 'x'}, {'ZSCORE', key, 'x'},
    }
    for _, each in ipairs(needed) do
        if not redis.acl_check_cmd(unpack(each)) then return each[1] end
    end
end

local store = known[4]
if act == 'hello' then
    if not redis.acl_check_cmd then return redis.error_reply('OLDSERVER') end
    local missing = permitted()
    if missing then
        return redis.error_reply('NOPERM this user must be allowed ' .. missing .. ' on keys ' .. prefix .. '*')
    end
end
if act == 'hello' or act == 'tick' then
    store = identify(tonumber(ARGV[3]))
elseif not store then
    return redis.error_reply('NOSTORE')
end

for _, lease in ipairs(call('ZRANGEBYSCORE', LEASES, '-inf', whole(clock))) do
    finish(lease)
end

-- Reading.

local function read(keys, from)
    local parts = {since}
    for first = from, #keys, 4000 do
        local last = math.min(first + 3999, #keys)
        table.insert(parts, call('HMGET', MARKS, unpack(keys, first, last)))
        table.insert(parts, call('HMGET', VALUES, unpack(keys, first, last)))
    end
    return parts
end

local function children(directory)
    return call('SMEMBERS', prefix .. 'children:' .. directory)
end

local function list(directory)
    local names = children(directory)
    for i, name in ipairs(names) do names[i] = directory .. '/' .. name end
    return {names, read(names, 1)}
end

-- Changing. A mark is "version created lease"; from ARGV[4] come four words for each part of a commit, of which
-- there are 4000 at most: what it is, key, version or nothing, value.

local function failing(marks)
    for i, mark in ipairs(marks) do
        local what, version = ARGV[4 * i], ARGV[4 * i + 2]
        local created = what == 'create' or what == 'hang'
        if created == (mark ~= false) or (version ~= '' and string.match(mark, '^%d+') .. '-' .. since ~= version) then
            return ARGV[4 * i + 1]
        end
    end
end

local function misplaced(marks)
    local made, places, fine = {}, {}, {}
    for i, mark in ipairs(marks) do
        local key = ARGV[4 * i + 1]
        if not mark then
            made[key] = true
            table.insert(places, prefix .. 'children:' .. key)
        end
    end
    local one_is = #places > 0 and call('EXISTS', unpack(places)) > 0
    for key in pairs(made) do
        if one_is and is_directory(key) then return {'directory', key} end
        local above = split(key)
        while above and not fine[above] and not is_directory(above) do
            if made[above] or call('HEXISTS', MARKS, above) == 1 then return {'bytes', above} end
            fine[above] = true
            above = split(above)
        end
        if above then fine[above] = true end
    end
end

local function delete(key, mark)
    remove(key)
    local born = string.match(mark, '(%S*)$')
    if born ~= '' then call('SREM', prefix .. 'lease:' .. born, key) end
end

local function apply(marks, lease)
    local new_marks, new_values, hung, leaves = {}, {}, {}, {}
    for i, mark in ipairs(marks) do
        local what, key = ARGV[4 * i], ARGV[4 * i + 1]
        if what == 'delete' then
            delete(key, mark)
        elseif what ~= 'if' then
            local rest = mark and string.match(mark, ' .*$')
                or ' ' .. whole(number) .. ' ' .. (what == 'hang' and lease or '')
            table.insert(new_marks, key)
            table.insert(new_marks, whole(number) .. rest)
            table.insert(new_values, key)
            table.insert(new_values, ARGV[4 * i + 3])
            note(mark and '=' or '+', key)
            if what == 'hang' then table.insert(hung, key) end
            local directory, leaf = split(key)
            if directory and not mark then
                leaves[directory] = leaves[directory] or {}
                table.insert(leaves[directory], leaf)
            end
        end
    end
    in_slices('HSET', MARKS, new_marks)
    in_slices('HSET', VALUES, new_values)
    in_slices('SADD', prefix .. 'lease:' .. lease, hung)
    for directory, names in pairs(leaves) do link(directory, names) end
end

local function commit(lease)
    if lease ~= '' and not lives(lease) then return {'lost'} end
    local keys = {}
    for i = 5, #ARGV, 4 do table.insert(keys, ARGV[i]) end
    local marks = call('HMGET', MARKS, unpack(keys))
    local failed = failing(marks)
    if failed then return {'refused', failed} end
    local wrong = misplaced(marks)
    if wrong then return wrong end
    number = number + 1
    apply(marks, lease)
    publish()
    return {'done', whole(number) .. '-' .. since}
end

local function grant(lease, ttl)
    call('ZADD', LEASES, whole(clock + ttl), lease)
    call('HSET', TTLS, lease, ttl)
    return 1
end

if act == 'commit' then return commit(ARGV[3]) end
if act == 'commit and list' then return {commit(ARGV[3]), list(ARGV[#ARGV])} end  -- One word more than parts have.
if act == 'get' then return read(ARGV, 3) end
if act == 'list' then return list(ARGV[3]) end
if act == 'keys' then return children(ARGV[3]) end
if act == 'lease' then return grant(ARGV[3], ARGV[4]) end
if act == 'renew' then return lives(ARGV[3]) and grant(ARGV[3], ARGV[4]) or 0 end
if act == 'revoke' then return lives(ARGV[3]) and finish(ARGV[3]) end
return {whole(number), store, call('HGET', META, 'history')}
