-- Every read and every change of the store, each one step that nothing else can come between.
-- KEYS[1] is the prefix of all keys and "meta". ARGV: what to do, and what that needs.
-- Nothing is written before it is certain that all of it will be.

local CAP, STEP = $CAP, 100
local call, ARGV, act = redis.call, ARGV, ARGV[1]
local META = KEYS[1]
local prefix = string.sub(META, 1, -5)
local VALUES, MARKS, CHILDREN = prefix .. 'values', prefix .. 'marks', prefix .. 'children:'
local LEASES, TTLS, LEASED = prefix .. 'leases', prefix .. 'ttls', prefix .. 'lease:'

local time = call('TIME')
local stamp = time[1] * 1000 + math.floor(time[2] / 1000)
-- Of the group that a commit changes first: its last commit is asked for along with the rest.
local group = act == 'commit' and string.match(ARGV[4], '^[^/]+') or ''
local known = call('HMGET', META, 'clock', 'stamp', 'number', 'store', 'since', 'last:' .. group)
local clock = tonumber(known[1] or 0)
local number = tonumber(known[3] or 0)  -- Of the last commit. Below 2^53, where Lua's numbers are exact.
local since = known[5]  -- The number from which on this history is certain. In every version: none of before holds.

local function whole(n)
    return string.format('%.0f', n)
end

-- The lease clock: it follows the server's, never back, and by no more than CAP between two commands.
local passed = stamp - (tonumber(known[2]) or stamp)
local moved = false
if passed >= 0 and passed < STEP then
    clock = clock + passed  -- Not worth writing down.
elseif known[4] then
    moved = true
    clock = clock + math.max(0, math.min(passed, CAP))
    call('HSET', META, 'clock', whole(clock), 'stamp', whole(stamp))
end

-- What was changed, by the first segment of the keys; every such group has a stream.
local news, last = {}, {[group] = known[6]}

local function note(sign, key)
    local where = string.match(key, '^[^/]+')
    local list = news[where] or {}
    news[where] = list
    list[#list + 1] = sign .. key
end

local function publish()
    local text = whole(number)
    local written = {'number', text}
    for where, list in pairs(news) do
        local stream, field = prefix .. 'stream:' .. where, 'last:' .. where
        local before = last[where] or call('HGET', META, field) or '0'
        call('XADD', stream, 'MAXLEN', '~', 1000, text .. '-0', 'after', before, 'changed', table.concat(list, ' '))
        -- Now and then is enough: who finds entries missing wakes everybody.
        if before == '0' or number % 50 == 0 then call('PEXPIRE', stream, 3600000) end
        last[where] = text
        written[#written + 1] = field
        written[#written + 1] = text
    end
    call('HSET', META, unpack(written))
    news = {}
    return text
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
    return call('EXISTS', CHILDREN .. name) == 1
end

local function link(directory, leaves)
    in_slices('SADD', CHILDREN .. directory, leaves)
    local above, leaf = split(directory)
    while above and call('SADD', CHILDREN .. above, leaf) == 1 do above, leaf = split(above) end
end

local function unlink(name)
    local directory, leaf = split(name)
    while directory do
        call('SREM', CHILDREN .. directory, leaf)
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
    local keys = call('SMEMBERS', LEASED .. lease)
    number = number + 1
    for _, key in ipairs(keys) do remove(key) end
    call('DEL', LEASED .. lease)
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
        {'DEL', key}, {'EXISTS', key}, {'HDEL', key, 'x'}, {'HGET', key, 'x'}, {'HGETALL', key},
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
    if not redis.acl_check_cmd then return redis.error_reply('OLDSERVER it lacks acl_check_cmd') end
    local missing = permitted()
    if missing then
        return redis.error_reply('NOPERM this user must be allowed ' .. missing .. ' on keys ' .. prefix .. '*')
    end
end
if act == 'hello' or act == 'tick' then
    store = identify(tonumber(ARGV[2]))
elseif not store then
    return redis.error_reply('NOSTORE it is empty')
end

-- A lease ends when the clock that is written down has passed its end.
if moved then
    for _, lease in ipairs(call('ZRANGEBYSCORE', LEASES, '-inf', whole(clock))) do finish(lease) end
end

-- Reading. A mark is "version created lease", and nothing for a key that is not there. All but the values is
-- answered as one text, line by line, before them: a client takes its time over each part of an answer.

local function read(head, keys, from)
    local marks, answer = {}, {''}
    for first = from, #keys, 4000 do
        local last = math.min(first + 3999, #keys)
        for _, mark in ipairs(call('HMGET', MARKS, unpack(keys, first, last))) do marks[#marks + 1] = mark or '' end
        for _, value in ipairs(call('HMGET', VALUES, unpack(keys, first, last))) do answer[#answer + 1] = value end
    end
    answer[1] = head .. since .. '\n' .. table.concat(marks, ',')
    return answer
end

local function list(head, directory)
    local names = call('SMEMBERS', CHILDREN .. directory)
    head = head .. table.concat(names, ' ') .. '\n'
    for i, name in ipairs(names) do names[i] = directory .. '/' .. name end
    return read(head, names, 1)
end

-- Changing. From ARGV[3] come four words for each part of a commit, of which there are 4000 at most: what it is,
-- key, version or nothing, value. One word more is a directory to list afterwards.

local function failing(marks)
    for i, mark in ipairs(marks) do
        local what, version = ARGV[4 * i - 1], ARGV[4 * i + 1]
        local created = what == 'create' or what == 'hang'
        if created == (mark ~= false) or (version ~= '' and string.match(mark, '^%d+') .. '-' .. since ~= version) then
            return ARGV[4 * i]
        end
    end
end

local function misplaced(keys, marks)
    local made, places, above = {}, {}, {}
    for i, mark in ipairs(marks) do
        if not mark then
            made[keys[i]] = true
            places[#places + 1] = CHILDREN .. keys[i]
        end
    end
    if #places == 0 then return end
    local one_is = call('EXISTS', unpack(places)) > 0
    for key in pairs(made) do
        if one_is and is_directory(key) then return 'directory ' .. key end
        local name = split(key)
        while name and not above[name] do
            if made[name] then return 'bytes ' .. name end
            above[name] = true
            above[#above + 1] = name
            name = split(name)
        end
    end
    for first = 1, #above, 4000 do
        local there = call('HMGET', MARKS, unpack(above, first, math.min(first + 3999, #above)))
        for i, mark in ipairs(there) do
            if mark then return 'bytes ' .. above[first + i - 1] end
        end
    end
end

local function delete(key, mark)
    remove(key)
    local born = string.match(mark, '(%S*)$')
    if born ~= '' then call('SREM', LEASED .. born, key) end
end

local function apply(keys, marks, lease)
    local new_marks, new_values, hung, leaves = {}, {}, {}, {}
    local version = whole(number)
    for i, mark in ipairs(marks) do
        local what, key = ARGV[4 * i - 1], keys[i]
        if what == 'delete' then
            delete(key, mark)
        elseif what ~= 'if' then
            local rest = mark and string.match(mark, ' .*$') or ' ' .. version .. ' ' .. (what == 'hang' and lease or '')
            local place = #new_marks
            new_marks[place + 1], new_marks[place + 2] = key, version .. rest
            new_values[place + 1], new_values[place + 2] = key, ARGV[4 * i + 2]
            note(mark and '=' or '+', key)
            if what == 'hang' then hung[#hung + 1] = key end
            local directory, leaf
            if not mark then directory, leaf = split(key) end
            if directory then
                leaves[directory] = leaves[directory] or {}
                table.insert(leaves[directory], leaf)
            end
        end
    end
    in_slices('HSET', MARKS, new_marks)
    in_slices('HSET', VALUES, new_values)
    in_slices('SADD', LEASED .. lease, hung)
    for directory, names in pairs(leaves) do link(directory, names) end
end

local function commit(lease)
    if lease ~= '' and not lives(lease) then return 'lost ' .. lease end
    local keys = {}
    for i = 4, #ARGV, 4 do keys[#keys + 1] = ARGV[i] end
    local marks = call('HMGET', MARKS, unpack(keys))
    local failed = failing(marks)
    if failed then return 'refused ' .. failed end
    local wrong = misplaced(keys, marks)
    if wrong then return wrong end
    number = number + 1
    apply(keys, marks, lease)
    return 'done ' .. publish() .. '-' .. since
end

local function grant(lease, ttl)
    call('ZADD', LEASES, whole(clock + ttl), lease)
    call('HSET', TTLS, lease, ttl)
    return 1
end

if act == 'commit' then
    local answer = commit(ARGV[2])
    return #ARGV % 4 == 3 and list(answer .. '\n', ARGV[#ARGV]) or answer
end
if act == 'get' then return read('', ARGV, 2) end
if act == 'list' then return list('', ARGV[2]) end
if act == 'keys' then return table.concat(call('SMEMBERS', CHILDREN .. ARGV[2]), ' ') end
if act == 'lease' then return grant(ARGV[2], ARGV[3]) end
if act == 'renew' then return lives(ARGV[2]) and grant(ARGV[2], ARGV[3]) or 0 end
if act == 'revoke' then return lives(ARGV[2]) and finish(ARGV[2]) end
return {whole(number), store, call('HGET', META, 'history')}
